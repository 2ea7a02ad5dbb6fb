#include "actors/wire/child_process.h"

#include <fcntl.h>
#include <sys/prctl.h>
#include <unistd.h>

#include <csignal>
#include <utility>
#include <variant>

#include "actors/wire/limits.h"

namespace lorikeet::actors {

Result<std::unique_ptr<ChildProcess>> ChildProcess::attach() {
  constexpr int kDescriptor = ControlChannel::kChildDescriptor;
  if (fcntl(kDescriptor, F_SETFD, FD_CLOEXEC) != 0) {
    return lorikeet::fail("this subcommand is for the supervisor to start; use `lorikeet serve`");
  }
  prctl(PR_SET_PDEATHSIG, SIGKILL);
  // Signals of a terminal, systemd or `timeout` reach the whole process group; only the supervisor decides what they mean.
  // It has started us with all signals blocked, so that none could come too early.
  for (const int number : {SIGINT, SIGTERM, SIGHUP, SIGTSTP, SIGTTIN, SIGTTOU, SIGPIPE}) std::signal(number, SIG_IGN);
  sigset_t none;
  sigemptyset(&none);
  sigprocmask(SIG_SETMASK, &none, nullptr);
  std::unique_ptr<ChildProcess> child(new ChildProcess(kDescriptor));
  auto start = child->channel_.receive_start();
  if (!start) return tl::unexpected(start.error());
  if (!*start) return lorikeet::fail("the supervisor is gone");
  child->start_ = **std::move(start);
  if (child->start_.rank >= 0) {
    if (fcntl(ControlChannel::kHeadDescriptor, F_SETFD, FD_CLOEXEC) != 0) {
      return lorikeet::fail("the supervisor has left no connection to the head");
    }
    child->head_connection_.reset(ControlChannel::kHeadDescriptor);
    if (child->start_.descriptors) {
      if (fcntl(ControlChannel::kDescriptorsDescriptor, F_SETFD, FD_CLOEXEC) != 0) {
        return lorikeet::fail("the supervisor has left no channel for descriptors");
      }
      child->descriptors_.reset(ControlChannel::kDescriptorsDescriptor);
    }
  } else {
    // Two for each rank, in two epochs (the old ones may still be open when the new ones come), and one more.
    child->reserve_.emplace(4 * static_cast<size_t>(child->start_.options.tensor_parallel_size) + 1);
  }
  if (child->start_.regions > kMaxRegions) {
    return lorikeet::fail("the supervisor holds {} regions of memory, at most {} are taken", child->start_.regions,
                          kMaxRegions);
  }
  for (uint32_t i = 0; i < child->start_.regions; ++i) {
    auto order = child->channel_.receive_order();
    if (!order) return tl::unexpected(order.error());
    auto* take = *order ? std::get_if<control::TakeRegion>(&**order) : nullptr;
    if (take == nullptr) return lorikeet::fail("the supervisor does not hand over what it holds");
    child->regions_.push_back({std::move(take->region), child->channel_.take_descriptor()});
  }
  // It may have died before the kernel was asked to tell.
  if (getppid() != child->start_.parent_pid) return lorikeet::fail("the supervisor is gone");
  return child;
}

void ChildProcess::tell(const ChildReport& report, int descriptor) {
  if (!channel_.send(report, descriptor)) _exit(1);
}

void ChildProcess::fail(const std::string& why, bool by_itself) {
  tell(control::Failed{why, by_itself});
  _exit(1);
}

void ChildProcess::listen(std::function<void(ChildOrder, Descriptor)> on_order) {
  std::thread([this, on_order = std::move(on_order)] {
    for (;;) {
      if (!channel_.wait()) _exit(1);
      const auto receive = [this] { return channel_.receive_order(); };
      auto order = reserve_ ? reserve_->open_for(receive) : receive();
      if (!order) fail(order.error().message);
      if (!*order) _exit(1);
      if (start_.rank >= 0 && std::holds_alternative<control::Ping>(**order)) {
        tell(control::Alive{});
        continue;
      }
      on_order(**std::move(order), channel_.take_descriptor());
    }
  }).detach();
}

}  // namespace lorikeet::actors
