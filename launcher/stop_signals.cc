#include "launcher/stop_signals.h"

#include <atomic>
#include <csignal>

namespace lorikeet::launcher {
namespace {

// A signal handler has no argument of its own, so what it reaches must be global.
std::atomic<actors::Server*> target{nullptr};
std::atomic<bool> signalled{false};

void on_signal(int) {
  signalled = true;
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
  signalled = false;
  std::signal(SIGPIPE, SIG_IGN);
  route(on_signal);
}

StopSignals::~StopSignals() {
  route(SIG_DFL);
  target = nullptr;
}

bool StopSignals::received() const {
  return signalled;
}

}  // namespace lorikeet::launcher
