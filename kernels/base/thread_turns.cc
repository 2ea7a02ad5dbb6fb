#include "kernels/base/thread_turns.h"

#include <sched.h>
#include <sys/prctl.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <cstdint>
#include <optional>

namespace lorikeet::kernels {
namespace {

constexpr uint64_t kShortTurnNs = 100'000;  // the shortest that there is
constexpr int32_t kBackgroundNice = 10;     // a tenth of the time of a thread that it shares a core with

// As the kernel has it in its first version; C libraries before glibc 2.41 do not declare it.
struct Attributes {
  uint32_t size = sizeof(Attributes);
  uint32_t policy = SCHED_OTHER;
  uint64_t flags = 0;
  int32_t nice = 0;
  uint32_t priority = 0;
  uint64_t runtime = 0;  // of SCHED_OTHER and SCHED_BATCH: a turn, in ns; 0: as long as the system has it
  uint64_t deadline = 0, period = 0;
};

// Those that nobody has chosen otherwise. Nothing: an operator has, or they cannot be asked, and what was chosen would be
// overwritten by what we make up.
std::optional<Attributes> unchosen() {
  Attributes attributes;
  if (syscall(SYS_sched_getattr, 0, &attributes, sizeof attributes, 0) != 0) return std::nullopt;
  if (attributes.policy != SCHED_OTHER) return std::nullopt;
  return attributes;
}

}  // namespace

void take_short_turns() {
  auto attributes = unchosen();
  if (!attributes) return;
  attributes->runtime = kShortTurnNs;
  syscall(SYS_sched_setattr, 0, &*attributes, 0);
}

void sleep_exactly() {
  prctl(PR_SET_TIMERSLACK, 1UL);  // ns
}

void work_in_background() {
  auto attributes = unchosen();
  if (!attributes) return;
  attributes->policy = SCHED_BATCH;
  if (attributes->nice < kBackgroundNice) attributes->nice = kBackgroundNice;
  attributes->runtime = 0;
  syscall(SYS_sched_setattr, 0, &*attributes, 0);
}

}  // namespace lorikeet::kernels
