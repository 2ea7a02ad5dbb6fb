#include "actors/wire/descriptor_reserve.h"

#include <fcntl.h>
#include <gtest/gtest.h>
#include <sys/wait.h>
#include <unistd.h>

#include <vector>

#include "kernels/base/descriptor.h"

namespace lorikeet::actors {
namespace {

class DescriptorReserveTest : public ::testing::Test {
 protected:
  DescriptorReserveTest() { getrlimit(RLIMIT_NOFILE, &before_); }
  ~DescriptorReserveTest() override { setrlimit(RLIMIT_NOFILE, &before_); }

  void allow(rlim_t count) const {
    rlimit limit = before_;
    limit.rlim_cur = count;
    ASSERT_EQ(setrlimit(RLIMIT_NOFILE, &limit), 0);
  }

  static Descriptor open_one() { return Descriptor(open("/dev/null", O_RDONLY | O_CLOEXEC)); }

  rlimit before_{};
};

TEST_F(DescriptorReserveTest, HasADescriptorWhenEverybodyElseHasNone) {
  allow(64);
  DescriptorReserve reserve(8);
  std::vector<Descriptor> taken;
  for (Descriptor next = open_one(); next; next = open_one()) taken.push_back(std::move(next));
  EXPECT_GT(taken.size(), 10u);
  std::vector<Descriptor> kept;
  for (int i = 0; i < 4; ++i) {
    kept.push_back(reserve.open_for(open_one));
    EXPECT_TRUE(kept.back());
  }
  EXPECT_FALSE(open_one());
}

TEST_F(DescriptorReserveTest, TakesNothingFromAProcessThatHasHardlyAny) {
  allow(12);
  DescriptorReserve reserve(8);
  rlimit now{};
  getrlimit(RLIMIT_NOFILE, &now);
  EXPECT_EQ(now.rlim_cur, 12u);
}

TEST_F(DescriptorReserveTest, RaisesTheLimitAsFarAsItGoes) {
  allow(64);
  EXPECT_TRUE(raise_descriptor_limit());
  rlimit now{};
  getrlimit(RLIMIT_NOFILE, &now);
  EXPECT_EQ(now.rlim_cur, now.rlim_max);
}

TEST_F(DescriptorReserveTest, SaysWhereThereAreTooFewToServe) {
  const pid_t child = fork();  // what the system lets a process have, it never gets back
  if (child == 0) {
    const rlimit few{20, 20};
    setrlimit(RLIMIT_NOFILE, &few);
    const auto raised = raise_descriptor_limit();
    _exit(!raised &&
                  raised.error().message == "a process may have 20 files open, 32 at the least are needed (ulimit -n)"
              ? 0
              : 1);
  }
  int status = -1;
  ASSERT_EQ(waitpid(child, &status, 0), child);
  EXPECT_EQ(status, 0);
}

}  // namespace
}  // namespace lorikeet::actors
