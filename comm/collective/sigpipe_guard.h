// Gloo writes to its sockets without MSG_NOSIGNAL: a peer that has closed its end would end this process.
#pragma once

#include <pthread.h>
#include <signal.h>
#include <time.h>

namespace lorikeet::comm {

// While it lives, a broken pipe is an error of this thread's writes and not a signal; threads that are started
// meanwhile inherit that for good. Made and destroyed by the same thread.
class SigpipeGuard {
 public:
  SigpipeGuard() {
    sigset_t pending;
    sigpending(&pending);
    was_pending_ = sigismember(&pending, SIGPIPE) == 1;
    sigemptyset(&sigpipe_);
    sigaddset(&sigpipe_, SIGPIPE);
    pthread_sigmask(SIG_BLOCK, &sigpipe_, &before_);
  }

  ~SigpipeGuard() {
    if (!was_pending_) {
      const timespec at_once{0, 0};
      while (sigtimedwait(&sigpipe_, nullptr, &at_once) == SIGPIPE) {
      }
    }
    pthread_sigmask(SIG_SETMASK, &before_, nullptr);
  }

  SigpipeGuard(const SigpipeGuard&) = delete;
  SigpipeGuard& operator=(const SigpipeGuard&) = delete;

 private:
  sigset_t sigpipe_, before_;
  bool was_pending_ = false;
};

}  // namespace lorikeet::comm
