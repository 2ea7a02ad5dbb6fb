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

void route(void (*handler)(int)) {
  struct sigaction action = {};
  action.sa_handler = handler;
  sigaction(SIGINT, &action, nullptr);
  sigaction(SIGTERM, &action, nullptr);
}

}  // namespace

StopSignals::StopSignals(actors::Server& server) {
  target = &server;
  signalled = 0;
  std::signal(SIGPIPE, SIG_IGN);
  route(on_signal);
}

StopSignals::~StopSignals() {
  route(SIG_DFL);
  target = nullptr;
}

int StopSignals::received() const {
  return signalled;
}

}  // namespace lorikeet::launcher
