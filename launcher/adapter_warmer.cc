#include "launcher/adapter_warmer.h"

#include <algorithm>
#include <chrono>
#include <cstdint>
#include <optional>
#include <utility>
#include <variant>

namespace lorikeet::launcher {
namespace {

using Clock = std::chrono::steady_clock;

constexpr std::chrono::seconds kPatience{60};
constexpr std::chrono::milliseconds kReceivePatience{200};
constexpr std::chrono::milliseconds kNap{10};  // between looks at whether it is to stop

}  // namespace

AdapterWarmer::AdapterWarmer(std::unique_ptr<comm::ServerClient> client, std::vector<std::string> names,
                             double per_second)
    : client_(std::move(client)),
      names_(std::move(names)),
      period_(per_second > 0 ? static_cast<int64_t>(1e9 / per_second) : 0),
      thread_([this] { run(); }) {}

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
  auto due = Clock::now();
  for (size_t i = 0; ended_ && !stops_; i = (i + 1) % names_.size()) {
    ended_ = warm(names_[i]);
    due += period_;
    wait_until(due);
  }
}

void AdapterWarmer::wait_until(Clock::time_point due) const {
  for (auto now = Clock::now(); now < due && !stops_; now = Clock::now()) {
    std::this_thread::sleep_for(std::min<Clock::duration>(due - now, kNap));
  }
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
