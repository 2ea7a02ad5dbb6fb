#include "launcher/adapter_warmer.h"

#include <chrono>
#include <optional>
#include <utility>
#include <variant>

namespace lorikeet::launcher {
namespace {

using Clock = std::chrono::steady_clock;

constexpr std::chrono::seconds kPatience{60};
constexpr std::chrono::milliseconds kReceivePatience{200};

}  // namespace

AdapterWarmer::AdapterWarmer(std::unique_ptr<comm::ServerClient> client, std::vector<std::string> names)
    : client_(std::move(client)), names_(std::move(names)), thread_([this] { run(); }) {}

AdapterWarmer::~AdapterWarmer() {
  gone_ = stops_ = true;
  if (thread_.joinable()) thread_.join();
}

Result<void> AdapterWarmer::stop() {
  stops_ = true;
  if (thread_.joinable()) thread_.join();
  return ended_;
}

void AdapterWarmer::run() {
  for (size_t i = 0; ended_ && !stops_; i = (i + 1) % names_.size()) ended_ = warm(names_[i]);
}

Result<void> AdapterWarmer::warm(const std::string& name) {
  comm::AdapterRequest request;
  request.id = name;
  request.action = "warm";
  request.name = name;
  if (auto sent = client_->send(request); !sent) return sent;
  for (const auto deadline = Clock::now() + kPatience; Clock::now() < deadline && !gone_;) {
    const auto message = client_->receive(kReceivePatience);
    if (!message) continue;
    if (std::holds_alternative<comm::AdapterReply>(*message)) return {};
    if (const auto* failure = std::get_if<comm::Failure>(&*message))
      return fail("adapter {}: {}", name, failure->message);
  }
  return fail("adapter {} is not there after {} s", name, kPatience.count());
}

}  // namespace lorikeet::launcher
