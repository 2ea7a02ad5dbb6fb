#include "launcher/stop_signals.h"

#include <atomic>
#include <csignal>

namespace lorikeet::launcher {
namespace {

// A signal handler has no argument of its own, so what it reaches must be global.
std::atomic<actors::Server*> target{nullptr};
std::atomic<int> signalled{0};

void on_signal(int number) {
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

}  // namespace lorikeet::launcher
