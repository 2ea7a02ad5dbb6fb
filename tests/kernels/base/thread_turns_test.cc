#include "kernels/base/thread_turns.h"

#include <gtest/gtest.h>
#include <sched.h>
#include <sys/resource.h>
#include <unistd.h>

#include <thread>

namespace lorikeet::kernels {
namespace {

int nice_value() {
  return getpriority(PRIO_PROCESS, static_cast<id_t>(gettid()));
}

TEST(ThreadTurns, GiveWayInTheBackgroundAndNobodyElse) {
  const int before = nice_value();
  const int policy = sched_getscheduler(0);
  if (policy != SCHED_OTHER) GTEST_SKIP() << "this process has a policy of its own";
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

TEST(ThreadTurns, LeaveWhatAnOperatorHasChosen) {
  std::thread([] {
    const sched_param none{};
    ASSERT_EQ(sched_setscheduler(0, SCHED_IDLE, &none), 0);
    const int before = nice_value();
    take_short_turns();
    work_in_background();
    EXPECT_EQ(sched_getscheduler(0), SCHED_IDLE);
    EXPECT_EQ(nice_value(), before);
  }).join();
}

}  // namespace
}  // namespace lorikeet::kernels
