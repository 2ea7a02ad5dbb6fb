#include "launcher/adapter_warmer.h"

#include <algorithm>
#include <chrono>
#include <cstdint>
#include <utility>
#include <variant>

namespace lorikeet::launcher {
namespace {

using Clock = std::chrono::steady_clock;

constexpr std::chrono::seconds kPatience{60};
constexpr std::chrono::milliseconds kReceivePatience{200};
constexpr std::chrono::milliseconds kNap{10};  // between looks at whether it is to stop
constexpr std::chrono::nanoseconds kLongestPeriod = std::chrono::hours(1);

}  // namespace

std::chrono::nanoseconds AdapterWarmer::period_of(double per_second) {
  if (!(per_second > 0)) return std::chrono::nanoseconds(0);
  const double longest = static_cast<double>(kLongestPeriod.count());
  return std::chrono::nanoseconds(static_cast<int64_t>(std::min(1e9 / per_second, longest)));
}

AdapterWarmer::AdapterWarmer(std::unique_ptr<comm::ServerClient> client, std::vector<std::string> names,
                             double per_second)
    : client_(std::move(client)),
      names_(std::move(names)),
      period_(period_of(per_second)),
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
  for (size_t i = 0; ended_ && !stops_; i = (i + 1) % names_.size()) {
    const auto began = Clock::now();  // what a slow one has missed is not made up for: others would come in a burst
    ended_ = warm(names_[i]);
    wait_until(began + period_);
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
