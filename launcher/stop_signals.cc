#include "launcher/stop_signals.h"

#include <atomic>
#include <csignal>
#include <cstdint>
#include <ctime>

namespace lorikeet::launcher {
namespace {

// A signal handler has no argument of its own, so what it reaches must be global.
std::atomic<actors::Server*> target{nullptr};
std::atomic<int> signalled{0};
std::atomic<bool> insists{false};
std::atomic<int64_t> signalled_at{0};  // nanoseconds of the monotonic clock; 0: never

// Signals so close together are one wish: `timeout` signals its child and then the child's group, systemd may send
// SIGHUP behind SIGTERM. A second wish would end the server at once.
constexpr int64_t kOneWish = 250'000'000;

int64_t monotonic_ns() {
  timespec now = {};
  clock_gettime(CLOCK_MONOTONIC, &now);  // may be called in a signal handler
  return int64_t{now.tv_sec} * 1'000'000'000 + now.tv_nsec;
}

void on_signal(int number) {
  const int64_t now = monotonic_ns();
  int64_t last = signalled_at;
  do {  // signals that come together may be handled by several threads at once
    if (last != 0 && now - last < kOneWish) return;
  } while (!signalled_at.compare_exchange_weak(last, now));
  insists = last != 0;
  signalled = number;
  if (actors::Server* server = target.load()) server->request_stop();
}

bool is_ignored(int number) {
  struct sigaction present = {};
  sigaction(number, nullptr, &present);
  return present.sa_handler == SIG_IGN;
}

void handle(void (*handler)(int)) {
  struct sigaction action = {};
  action.sa_handler = handler;
  sigaction(SIGINT, &action, nullptr);
  sigaction(SIGTERM, &action, nullptr);
  if (!is_ignored(SIGHUP)) sigaction(SIGHUP, &action, nullptr);
}

}  // namespace

StopSignals::StopSignals() {
  target = nullptr;
  signalled = 0;
  signalled_at = 0;
  insists = false;
  std::signal(SIGPIPE, SIG_IGN);
  handle(on_signal);
}

StopSignals::~StopSignals() {
  handle(SIG_DFL);
  target = nullptr;
}

void StopSignals::route_to(actors::Server* server) {
  target = server;
  if (server != nullptr && signalled != 0) server->request_stop();
}

int StopSignals::received() const {
  return signalled;
}

bool StopSignals::insisted() const {
  return insists;
}

}  // namespace lorikeet::launcher
