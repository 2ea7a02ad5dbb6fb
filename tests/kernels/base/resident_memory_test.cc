#include "kernels/base/resident_memory.h"

#include <fcntl.h>
#include <fmt/format.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <sys/mman.h>
#include <sys/resource.h>
#include <sys/wait.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <fstream>
#include <numeric>
#include <string>
#include <string_view>
#include <vector>

namespace lorikeet::kernels {
namespace {

using ::testing::HasSubstr;

std::vector<uint8_t> counting(size_t size) {
  std::vector<uint8_t> bytes(size);
  std::iota(bytes.begin(), bytes.end(), uint8_t{1});
  return bytes;
}

ResidentMemory sealed(std::span<const uint8_t> bytes) {
  auto memory = ResidentMemory::make("test").value();
  EXPECT_TRUE(memory.write(0, bytes));
  EXPECT_TRUE(memory.seal());
  return memory;
}

Descriptor copy_of(const Descriptor& descriptor) {
  return Descriptor(fcntl(descriptor.get(), F_DUPFD_CLOEXEC, 3));
}

bool same(std::span<const uint8_t> a, std::span<const uint8_t> b) {
  return std::equal(a.begin(), a.end(), b.begin(), b.end());
}

// Whether madvise(2) does anything: an emulator may well be content with whatever it is told.
bool takes_advice() {
  const ResidentMemory memory = sealed(counting(1));
  constexpr int kNoAdvice = -1;
  return madvise(const_cast<uint8_t*>(memory.bytes().data()), 1, kNoAdvice) != 0;
}

// Of the mapping that begins with these bytes, which are read at first (proc_pid_smaps(5)).
size_t in_large_pages(std::span<const uint8_t> bytes) {
  EXPECT_GT(std::count(bytes.begin(), bytes.end(), uint8_t{1}), 0);
  std::ifstream smaps("/proc/self/smaps");
  std::string line;
  const std::string begin = fmt::format("{:x}-", reinterpret_cast<uintptr_t>(bytes.data()));
  while (std::getline(smaps, line) && !line.starts_with(begin)) {
  }
  constexpr std::string_view kField = "ShmemPmdMapped:";
  while (std::getline(smaps, line)) {
    if (line.starts_with(kField)) return std::stoull(line.substr(kField.size())) << 10;
  }
  return 0;
}

TEST(ResidentMemory, HoldsWhatWasWrittenInAnyOrder) {
  const auto bytes = counting(10'000);
  auto memory = ResidentMemory::make("test").value();
  ASSERT_TRUE(memory.write(5'000, std::span(bytes).subspan(5'000)));
  ASSERT_TRUE(memory.write(0, std::span(bytes).first(4'990)));
  ASSERT_TRUE(memory.seal());
  ASSERT_EQ(memory.bytes().size(), bytes.size());
  EXPECT_TRUE(same(memory.bytes().first(4'990), std::span(bytes).first(4'990)));
  EXPECT_EQ(memory.bytes()[4'995], 0) << "was never written";
  EXPECT_TRUE(same(memory.bytes().subspan(5'000), std::span(bytes).subspan(5'000)));
}

TEST(ResidentMemory, SaysWhereItHasNoPagesForAMappingInsteadOfDyingOfIt) {
  if (!takes_advice()) GTEST_SKIP() << "here madvise(2) does nothing";
  const auto page = static_cast<size_t>(sysconf(_SC_PAGESIZE));
  const auto memory = ResidentMemory::make("test").value();
  ASSERT_EQ(ftruncate(memory.descriptor().get(), static_cast<off_t>(page)), 0);
  void* const at = mmap(nullptr, 2 * page, PROT_READ | PROT_WRITE, MAP_SHARED, memory.descriptor().get(), 0);
  ASSERT_NE(at, MAP_FAILED);
  auto* const bytes = static_cast<uint8_t*>(at);
  ASSERT_TRUE(populate({bytes, page}, memory.descriptor(), 0));
  bytes[page - 1] = 1;
  const auto behind = populate({bytes + page, page}, memory.descriptor(), page);  // where a write raises SIGBUS
  ASSERT_FALSE(behind);
  EXPECT_THAT(behind.error().message, HasSubstr("bytes of memory cannot be had: "));
  munmap(at, 2 * page);
}

TEST(ResidentMemory, IsTheSameInLargePagesWhichBeginWhereItDoes) {
  constexpr size_t kLargePage = 2 << 20;
  const auto bytes = counting(2 * kLargePage + 5'000);
  const auto memory = sealed(bytes);
  EXPECT_EQ(reinterpret_cast<uintptr_t>(memory.bytes().data()) % kLargePage, 0U);
  if (memory.use_large_pages() && takes_advice()) {
    EXPECT_EQ(in_large_pages(memory.bytes()), 2 * kLargePage);
    const auto attached = ResidentMemory::attach(copy_of(memory.descriptor())).value();
    EXPECT_TRUE(same(attached.bytes(), bytes));
    EXPECT_TRUE(attached.use_large_pages());
    EXPECT_EQ(in_large_pages(attached.bytes()), 2 * kLargePage);
  }
  EXPECT_TRUE(same(memory.bytes(), bytes));
}

TEST(ResidentMemory, TooSmallForALargePageHasThemAll) {
  EXPECT_TRUE(sealed(counting(10'000)).use_large_pages());
}

TEST(ResidentMemory, OutlivesItsMaker) {
  const auto bytes = counting(100'000);
  Descriptor kept;
  {
    const ResidentMemory made = sealed(bytes);
    kept = copy_of(made.descriptor());
  }
  const auto attached = ResidentMemory::attach(std::move(kept));
  ASSERT_TRUE(attached) << attached.error().message;
  EXPECT_TRUE(same(attached->bytes(), bytes));
}

TEST(ResidentMemory, IsTheSameInAnotherProcess) {
  const auto bytes = counting(100'000);
  const ResidentMemory made = sealed(bytes);
  const pid_t child = fork();
  ASSERT_GE(child, 0);
  if (child == 0) {
    const auto attached = ResidentMemory::attach(copy_of(made.descriptor()));
    _exit(attached && same(attached->bytes(), bytes) ? 0 : 1);
  }
  int status = 0;
  ASSERT_EQ(waitpid(child, &status, 0), child);
  EXPECT_TRUE(WIFEXITED(status) && WEXITSTATUS(status) == 0);
}

TEST(ResidentMemory, IsChangedByNobodyOnceItIsSealed) {
  const auto bytes = counting(4'096);
  ResidentMemory memory = sealed(bytes);
  const int descriptor = memory.descriptor().get();
  EXPECT_FALSE(memory.write(0, bytes));
  EXPECT_NE(ftruncate(descriptor, 0), 0);
  EXPECT_NE(ftruncate(descriptor, 8'192), 0);
  EXPECT_EQ(mmap(nullptr, 4'096, PROT_READ | PROT_WRITE, MAP_SHARED, descriptor, 0), MAP_FAILED);
  EXPECT_TRUE(same(memory.bytes(), bytes));
}

TEST(ResidentMemory, RefusesWhatIsNotSealed) {
  auto memory = ResidentMemory::make("test").value();
  ASSERT_TRUE(memory.write(0, counting(16)));
  const auto unsealed = ResidentMemory::attach(copy_of(memory.descriptor()));
  ASSERT_FALSE(unsealed);
  EXPECT_THAT(unsealed.error().message, HasSubstr("not one of sealed memory"));
  ASSERT_EQ(fcntl(memory.descriptor().get(), F_ADD_SEALS, F_SEAL_SHRINK | F_SEAL_GROW), 0);
  EXPECT_FALSE(ResidentMemory::attach(copy_of(memory.descriptor()))) << "it can still be written";

  std::array<int, 2> ends{};
  ASSERT_EQ(pipe2(ends.data(), O_CLOEXEC), 0);
  const Descriptor writer(ends[1]);
  EXPECT_FALSE(ResidentMemory::attach(Descriptor(ends[0])));
  EXPECT_FALSE(ResidentMemory::attach(Descriptor(open("/proc/self/exe", O_RDONLY | O_CLOEXEC))));
  EXPECT_FALSE(ResidentMemory::attach(Descriptor()));
}

TEST(ResidentMemory, IsNotMadeWhereFilesMayNotGrow) {
  const pid_t child = fork();
  ASSERT_GE(child, 0);
  if (child == 0) {
    const rlimit limit{4'096, 4'096};
    if (setrlimit(RLIMIT_FSIZE, &limit) != 0) _exit(2);
    const auto made = ResidentMemory::make("test");
    _exit(!made && made.error().message.find("ulimit -f") != std::string::npos ? 0 : 1);
  }
  int status = 0;
  ASSERT_EQ(waitpid(child, &status, 0), child);
  EXPECT_TRUE(WIFEXITED(status) && WEXITSTATUS(status) == 0);
}

TEST(ResidentMemory, RefusesEmptyMemory) {
  auto memory = ResidentMemory::make("test").value();
  const auto empty = memory.seal();
  ASSERT_FALSE(empty);
  EXPECT_THAT(empty.error().message, HasSubstr("empty"));
  EXPECT_EQ(sealed_size(memory.descriptor()).value(), 0U);
}

}  // namespace
}  // namespace lorikeet::kernels
