#include "kernels/base/thread_turns.h"

#include <gtest/gtest.h>
#include <linux/filter.h>
#include <linux/seccomp.h>
#include <sched.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <array>
#include <cerrno>
#include <cstddef>
#include <cstdint>
#include <iterator>
#include <thread>

namespace lorikeet::kernels {
namespace {

int nice_value() {
  return getpriority(PRIO_PROCESS, static_cast<id_t>(gettid()));
}

// Whether the system lets a thread give way at all: containers may refuse it, or not know how.
bool may_give_way() {
  bool may = false;
  std::thread([&] {
    std::array<uint32_t, 12> attributes{};  // sched_setattr(2): size, policy, flags (2), nice, ...
    if (syscall(SYS_sched_getattr, 0, attributes.data(), sizeof attributes, 0) != 0) return;
    attributes[1] = SCHED_BATCH;
    attributes[4] = 19;
    may = syscall(SYS_sched_setattr, 0, attributes.data(), 0) == 0;
  }).join();
  return may;
}

// From now on a call is refused to this thread, as a container may do. False: that cannot be had here.
bool refuse(long call) {
  sock_filter filter[] = {
      BPF_STMT(BPF_LD | BPF_W | BPF_ABS, offsetof(seccomp_data, nr)),
      BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, static_cast<uint32_t>(call), 0, 1),
      BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ERRNO | EPERM),
      BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ALLOW),
  };
  const sock_fprog program{static_cast<unsigned short>(std::size(filter)), filter};
  return prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) == 0 && prctl(PR_SET_SECCOMP, SECCOMP_MODE_FILTER, &program) == 0;
}

TEST(ThreadTurns, GiveWayInTheBackgroundAndNobodyElse) {
  const int before = nice_value();
  const int policy = sched_getscheduler(0);
  if (policy != SCHED_OTHER) GTEST_SKIP() << "this process has a policy of its own";
  if (!may_give_way()) GTEST_SKIP() << "this system lets no thread give way";
  std::thread([&] {
    take_short_turns();
    EXPECT_EQ(sched_getscheduler(0), SCHED_OTHER);
    EXPECT_EQ(nice_value(), before);
    work_in_background();
    EXPECT_EQ(sched_getscheduler(0), SCHED_BATCH);
    EXPECT_GE(nice_value(), 10);
    std::thread([&] { EXPECT_EQ(sched_getscheduler(0), SCHED_BATCH); }).join();
  }).join();
  EXPECT_EQ(sched_getscheduler(0), policy);
  EXPECT_EQ(nice_value(), before);
}

TEST(ThreadTurns, SleepExactlyWhereAskedToAndNowhereElse) {
  const int usual = prctl(PR_GET_TIMERSLACK);
  if (usual <= 1) GTEST_SKIP() << "this process sleeps so already";
  int asked = 0;
  std::thread([&asked] {
    sleep_exactly();
    asked = prctl(PR_GET_TIMERSLACK);
  }).join();
  EXPECT_EQ(asked, 1);
  EXPECT_EQ(prctl(PR_GET_TIMERSLACK), usual);
}

TEST(ThreadTurns, LeaveWhatAnOperatorHasChosen) {
  bool chosen = false;
  std::thread([&] {
    const sched_param none{};
    chosen = sched_setscheduler(0, SCHED_IDLE, &none) == 0;
    if (!chosen) return;
    const int before = nice_value();
    take_short_turns();
    work_in_background();
    EXPECT_EQ(sched_getscheduler(0), SCHED_IDLE);
    EXPECT_EQ(nice_value(), before);
  }).join();
  if (!chosen) GTEST_SKIP() << "this system lets nobody choose";
}

TEST(ThreadTurns, LeaveAllAsItIsWhereItCannotBeAskedOrChanged) {
  for (const long call : {SYS_sched_getattr, SYS_sched_setattr}) {
    bool refused = false;
    std::thread([&] {
      refused = refuse(call);
      if (!refused) return;
      const int policy = sched_getscheduler(0), before = nice_value();
      take_short_turns();
      work_in_background();
      EXPECT_EQ(sched_getscheduler(0), policy);
      EXPECT_EQ(nice_value(), before);
    }).join();
    if (!refused) GTEST_SKIP() << "this system lets no thread be refused a call";
  }
}

}  // namespace
}  // namespace lorikeet::kernels
