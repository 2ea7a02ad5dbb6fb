#include "kernels/base/shared_memory.h"

#include <fcntl.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <signal.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cstring>
#include <vector>

#include "kernels/base/resident_memory.h"

namespace lorikeet::kernels {
namespace {

using ::testing::HasSubstr;

Descriptor copy_of(const Descriptor& descriptor) {
  return Descriptor(fcntl(descriptor.get(), F_DUPFD_CLOEXEC, 3));
}

TEST(SharedMemory, HoldsWhatAProcessHadWrittenWhenItWasKilled) {
  const auto memory = SharedMemory::make("test", 100'000).value();
  EXPECT_EQ(memory.size(), 100'000U);
  EXPECT_EQ(memory.data()[99'999], 0);
  const pid_t child = fork();
  if (child == 0) {
    const auto attached = SharedMemory::attach(copy_of(memory.descriptor()), 100'000);
    if (attached) std::memset(attached->data() + 50'000, 7, 50'000);
    kill(getpid(), SIGKILL);
  }
  int status = 0;
  ASSERT_EQ(waitpid(child, &status, 0), child);
  EXPECT_TRUE(WIFSIGNALED(status));
  EXPECT_EQ(memory.data()[49'999], 0);
  EXPECT_EQ(memory.data()[50'000], 7);
  EXPECT_EQ(memory.data()[99'999], 7);
}

TEST(SharedMemory, IsAttachedInItsOwnSizeAlone) {
  const auto memory = SharedMemory::make("test", 5'000).value();
  EXPECT_EQ(shared_size(memory.descriptor()).value(), 5'000U);
  EXPECT_TRUE(SharedMemory::attach(copy_of(memory.descriptor()), 5'000));
  const auto other = SharedMemory::attach(copy_of(memory.descriptor()), 5'001);
  ASSERT_FALSE(other);
  EXPECT_THAT(other.error().message, HasSubstr("of 5000 bytes, not of 5001"));
  EXPECT_NE(ftruncate(memory.descriptor().get(), 1), 0) << "its pages cannot be taken away";
  EXPECT_NE(ftruncate(memory.descriptor().get(), 10'000), 0);
  EXPECT_FALSE(SharedMemory::make("test", 0));
}

TEST(SharedMemory, IsNotWhatIsSealedOrNoMemoryAtAll) {
  auto sealed = ResidentMemory::make("test").value();
  ASSERT_TRUE(sealed.write(0, std::vector<uint8_t>(10, 1)));
  EXPECT_FALSE(shared_size(sealed.descriptor())) << "it could still be cut";
  ASSERT_TRUE(sealed.seal());
  EXPECT_FALSE(SharedMemory::attach(copy_of(sealed.descriptor()), 10)) << "nobody can write to it";
  EXPECT_FALSE(sealed_size(SharedMemory::make("test", 10)->descriptor()));
  EXPECT_FALSE(SharedMemory::attach(Descriptor(open("/dev/null", O_RDWR | O_CLOEXEC)), 10));
  EXPECT_FALSE(SharedMemory::attach(Descriptor(), 10));
}

}  // namespace
}  // namespace lorikeet::kernels
