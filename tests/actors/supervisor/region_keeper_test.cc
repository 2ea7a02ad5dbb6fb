#include "actors/supervisor/region_keeper.h"

#include <fcntl.h>
#include <fmt/format.h>
#include <gmock/gmock.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <unistd.h>

#include <array>
#include <filesystem>

#include "actors/wire/limits.h"
#include "kernels/base/resident_memory.h"
#include "kernels/base/shared_memory.h"

namespace lorikeet::actors {
namespace {

using ::testing::HasSubstr;

constexpr uint64_t kBytes = 5'000;

Descriptor sealed(uint64_t bytes = kBytes) {
  auto memory = kernels::ResidentMemory::make("test").value();
  EXPECT_TRUE(memory.write(0, std::vector<uint8_t>(bytes, 7)));
  EXPECT_TRUE(memory.seal());
  return Descriptor(fcntl(memory.descriptor().get(), F_DUPFD_CLOEXEC, 3));
}

Descriptor shared() {
  return Descriptor(fcntl(kernels::SharedMemory::make("test", kBytes).value().descriptor().get(), F_DUPFD_CLOEXEC, 3));
}

// Of a size for which there is no memory, and which takes none as long as nobody writes.
Descriptor sparse(uint64_t bytes) {
  Descriptor memory(memfd_create("test", MFD_CLOEXEC | MFD_ALLOW_SEALING));
  EXPECT_EQ(ftruncate(memory.get(), static_cast<off_t>(bytes)), 0);
  EXPECT_EQ(fcntl(memory.get(), F_ADD_SEALS, F_SEAL_SHRINK | F_SEAL_GROW | F_SEAL_WRITE | F_SEAL_SEAL), 0);
  return memory;
}

RegionDescription named(const std::string& name, uint64_t bytes = kBytes) {
  return {name, RegionKind::sealed, bytes};
}

size_t open_descriptors() {
  const std::filesystem::directory_iterator all("/proc/self/fd");
  return static_cast<size_t>(std::distance(begin(all), end(all)));
}

std::string refusal(RegionKeeper& keeper, int32_t rank, const RegionDescription& what, Descriptor memory) {
  const auto held = keeper.hold(rank, what, std::move(memory));
  return held ? "" : held.error().message;
}

TEST(RegionKeeper, HoldsWhatEachRankHandsOver) {
  RegionKeeper keeper;
  ASSERT_TRUE(keeper.hold(0, named("weights"), sealed()));
  ASSERT_TRUE(keeper.hold(0, named("kv"), sealed()));
  ASSERT_TRUE(keeper.hold(1, named("weights"), sealed()));
  const auto of_first = keeper.of(0);
  ASSERT_EQ(of_first.size(), 2U);
  EXPECT_EQ(of_first[0]->what.name, "kv");
  EXPECT_EQ(of_first[1]->what.name, "weights");
  EXPECT_EQ(kernels::sealed_size(of_first[1]->memory).value(), kBytes);
  EXPECT_EQ(keeper.of(1).size(), 1U);
  EXPECT_TRUE(keeper.of(2).empty());
  EXPECT_TRUE(keeper.of(-1).empty()) << "the head has none";
}

TEST(RegionKeeper, ClosesWhatIsReplacedAndDropped) {
  const size_t before = open_descriptors();
  RegionKeeper keeper;
  for (int i = 0; i < 5; ++i) ASSERT_TRUE(keeper.hold(0, named("weights"), sealed()));
  EXPECT_EQ(open_descriptors(), before + 1);
  ASSERT_TRUE(keeper.hold(1, named("weights"), sealed()));
  {
    const auto in_use = keeper.of(0);
    keeper.drop(0);
    keeper.drop(0);
    EXPECT_EQ(open_descriptors(), before + 2) << "somebody hands it over at this moment";
  }
  EXPECT_EQ(open_descriptors(), before + 1);
  EXPECT_TRUE(keeper.of(0).empty());
  EXPECT_EQ(keeper.of(1).size(), 1U);
}

TEST(RegionKeeper, DropsOneOfThemByItsName) {
  const size_t before = open_descriptors();
  RegionKeeper keeper;
  ASSERT_TRUE(keeper.hold(0, named("weights"), sealed()));
  ASSERT_TRUE(keeper.hold(0, named("kv"), sealed()));
  keeper.drop(0, "kv");
  keeper.drop(0, "kv");
  keeper.drop(1, "kv");
  ASSERT_EQ(keeper.of(0).size(), 1U);
  EXPECT_EQ(keeper.of(0)[0]->what.name, "weights");
  EXPECT_EQ(open_descriptors(), before + 1);
}

TEST(RegionKeeper, RefusesWhatIsNotTheMemoryThatItIsSaidToBe) {
  const size_t before = open_descriptors();
  RegionKeeper keeper;
  EXPECT_THAT(refusal(keeper, 0, named("weights", kBytes + 1), sealed()), HasSubstr("5000 bytes, and is said to have"));
  EXPECT_THAT(refusal(keeper, 0, named("weights"), Descriptor()), HasSubstr("not one of sealed memory"));
  EXPECT_THAT(refusal(keeper, 0, named("weights"), Descriptor(open("/dev/null", O_RDONLY))), HasSubstr("sealed"));
  EXPECT_THAT(refusal(keeper, 0, named(""), sealed()), HasSubstr("a name of 0 bytes"));
  EXPECT_THAT(refusal(keeper, 0, named(std::string(65, 'x')), sealed()), HasSubstr("a name of 65 bytes"));
  EXPECT_THAT(refusal(keeper, -1, named("weights"), sealed()), HasSubstr("only ranks"));

  const RegionDescription written = {"kv", RegionKind::shared, kBytes};
  EXPECT_THAT(refusal(keeper, 0, written, sealed()), HasSubstr("not one of shared memory")) << "nobody can write to it";
  EXPECT_THAT(refusal(keeper, 0, named("kv"), shared()), HasSubstr("not one of sealed memory"));
  EXPECT_EQ(refusal(keeper, 3, written, shared()), "");
  keeper.drop(3);

  std::array<int, 2> ends{};
  ASSERT_EQ(socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, ends.data()), 0);
  Descriptor other(ends[1]);
  const RegionDescription device = {"weights.00", RegionKind::device, kBytes};
  EXPECT_THAT(refusal(keeper, 0, device, Descriptor(ends[0])), HasSubstr("not one of device memory"));
  EXPECT_THAT(refusal(keeper, 0, device, Descriptor(open("/proc/self/exe", O_RDONLY))), HasSubstr("device memory"));
  EXPECT_THAT(refusal(keeper, 0, device, Descriptor()), HasSubstr("no descriptor"));
  other.reset();
  EXPECT_TRUE(keeper.of(0).empty());
  EXPECT_EQ(open_descriptors(), before) << "what is refused is closed";
}

TEST(RegionKeeper, HoldsNoMoreThanItsLimits) {
  RegionKeeper keeper;
  for (size_t i = 0; i < kMaxRegions; ++i) {
    ASSERT_TRUE(keeper.hold(0, named(fmt::format("region {}", i), 1), sealed(1)));
  }
  EXPECT_THAT(refusal(keeper, 0, named("one more", 1), sealed(1)), HasSubstr("more than 64 regions"));
  EXPECT_EQ(refusal(keeper, 0, named("region 3", 1), sealed(1)), "") << "in place of the older one";
  EXPECT_EQ(refusal(keeper, 1, named("region 0", 1), sealed(1)), "") << "of another rank";

  EXPECT_EQ(refusal(keeper, 2, named("a", kMaxRegionBytes / 2), sparse(kMaxRegionBytes / 2)), "");
  EXPECT_THAT(refusal(keeper, 2, named("b", kMaxRegionBytes / 2 + 1), sparse(kMaxRegionBytes / 2 + 1)),
              HasSubstr("more than"));
  EXPECT_EQ(refusal(keeper, 2, named("a", kMaxRegionBytes), sparse(kMaxRegionBytes)), "");
}

TEST(RegionKeeper, LetsGoOfWhatIsReplacedByMemoryThatItRefuses) {
  RegionKeeper keeper;
  ASSERT_TRUE(keeper.hold(0, named("kv"), sealed()));
  EXPECT_NE(refusal(keeper, 0, named("kv", kBytes + 1), sealed()), "");
  EXPECT_TRUE(keeper.of(0).empty()) << "a successor would take it for what its predecessor had last";
}

}  // namespace
}  // namespace lorikeet::actors
