#include "actors/wire/child_process.h"

#include <fcntl.h>
#include <sys/prctl.h>
#include <unistd.h>

#include <csignal>
#include <utility>

namespace lorikeet::actors {

Result<std::unique_ptr<ChildProcess>> ChildProcess::attach() {
  constexpr int kDescriptor = ControlChannel::kChildDescriptor;
  if (fcntl(kDescriptor, F_SETFD, FD_CLOEXEC) != 0) {
    return lorikeet::fail("this subcommand is for the supervisor to start; use `lorikeet serve`");
  }
  prctl(PR_SET_PDEATHSIG, SIGKILL);
  // A terminal's Ctrl-C reaches the whole process group; the supervisor alone decides what it means.
  std::signal(SIGINT, SIG_IGN);
  std::signal(SIGPIPE, SIG_IGN);
  std::unique_ptr<ChildProcess> child(new ChildProcess(kDescriptor));
  auto start = child->channel_.receive_start();
  if (!start) return tl::unexpected(start.error());
  if (!*start) return lorikeet::fail("the supervisor is gone");
  child->start_ = **std::move(start);
  // It may have died before the kernel was asked to tell.
  if (getppid() != child->start_.parent_pid) return lorikeet::fail("the supervisor is gone");
  return child;
}

void ChildProcess::tell(const ChildReport& report) {
  if (!channel_.send(report)) _exit(1);
}

void ChildProcess::progress(const std::string& line) {
  tell(control::Progress{line});
}

void ChildProcess::fail(const std::string& why) {
  tell(control::Failed{why});
  _exit(1);
}

void ChildProcess::listen(std::function<void(ChildOrder)> on_order) {
  std::thread([this, on_order = std::move(on_order)] {
    for (;;) {
      auto order = channel_.receive_order();
      if (!order) fail(order.error().message);
      if (!*order) _exit(1);
      on_order(**std::move(order));
    }
  }).detach();
}

}  // namespace lorikeet::actors
