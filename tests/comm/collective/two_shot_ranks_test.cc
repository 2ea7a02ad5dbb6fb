// Sums in two shots over several ranks: thousands of sizes, and a rank that is lost in the middle of one.
#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <signal.h>

#include <algorithm>
#include <array>
#include <chrono>
#include <cmath>
#include <cstdlib>
#include <random>

#include "comm/collective/sum_table.h"
#include "kernels/peer/peer_sum_cuda.h"
#include "tests/comm/collective/gpu_ranks.h"
#include "tests/comm/collective/processes.h"

namespace lorikeet::comm {
namespace {

using namespace std::chrono_literals;
using Clock = std::chrono::steady_clock;
using kernels::Dtype;
using ::testing::Each;

constexpr int kRanks = 4;
constexpr size_t kCount = 400'000;  // floats
static_assert(sum_by(kCount * sizeof(float), kRanks) == SumBy::two_shot);
static_assert(sum_by(kCount * sizeof(float), kRanks - 1) == SumBy::two_shot);

class TwoShotRanks : public GpuRanks {};

// Small integers, whose sums are exact.
std::string check_sum(DeviceCollective& collective, const kernels::Stream& stream) {
  const int size = collective.size();
  std::vector<float> values(kCount), wanted(kCount);
  for (size_t i = 0; i < kCount; i++) {
    const auto term = static_cast<int>(i % 7);
    values[i] = static_cast<float>(term + collective.rank());
    wanted[i] = static_cast<float>(term * size + size * (size - 1) / 2);
  }
  const kernels::DeviceBuffer data = allocate(kCount * sizeof(float));
  kernels::copy_to_device(data.data(), values.data(), data.bytes(), stream);
  collective.all_reduce(data.data(), kCount, Dtype::f32, stream);
  wait_for(collective, stream);
  kernels::copy_to_host(values.data(), data.data(), data.bytes(), stream);
  stream.synchronize();
  return values == wanted ? "" : "a sum is wrong; ";
}

// What a rank does that outlives another: sums are whole until one ends with `wanted`, within `bound`; then the stream is
// free, and nothing is summed any more.
std::string sum_until(CollectiveFailure wanted, Clock::duration bound, DeviceCollective& collective,
                      const kernels::Stream& stream) {
  const Clock::time_point started = Clock::now();
  try {
    for (;;) {
      if (std::string wrong = check_sum(collective, stream); !wrong.empty()) return wrong;
    }
  } catch (const CollectiveError& error) {
    if (error.failure() != wanted) return std::string("another failure: ") + error.what();
  }
  if (Clock::now() - started > bound) return "it took too long; ";
  try {
    reduce_and_wait(collective, stream, kCount);
  } catch (const CollectiveError&) {
    stream.synchronize();
    return "";
  }
  return "a dead communicator went on; ";
}

TEST_P(TwoShotRanks, GoOnWithANewRankWhereOneIsKilledInTheMiddleOfASum) {
  // Processes 0 to 3 are the first group; 3 dies, and process 4 takes its place.
  const std::vector<std::string> reports = run_processes(kRanks + 1, [&](int process) -> std::string {
    const std::string trouble = take_device(process);
    if (!trouble.empty()) return trouble;
    FileRendezvous store(directory_.path());
    if (process == kRanks) {
      store.get("first_is_over", 60s);
    } else {
      std::string wrong = join_and_run(directory_.path(), options_of(process, kRanks), GetParam(),
                                       [&](DeviceCollective& collective, const kernels::Stream& stream) -> std::string {
                                         std::string sums;
                                         for (int i = 0; i < 3; i++) sums += check_sum(collective, stream);
                                         if (process == kRanks - 1)
                                           raise(SIGKILL);  // the others wait for its part of the next
                                         return sums + sum_until(CollectiveFailure::peer_lost, 10s, collective, stream);
                                       });
      if (!wrong.empty()) return wrong;
      if (process == 0) store.set("first_is_over", {1});
    }
    NcclOptions second = options_of(std::min(process, kRanks - 1), kRanks);
    second.prefix = "second";
    return join_and_run(
        directory_.path(), second, GetParam(),
        [](DeviceCollective& collective, const kernels::Stream& stream) { return check_sum(collective, stream); });
  });
  for (const int survivor : {0, 1, 2, 4}) EXPECT_EQ(reports[static_cast<size_t>(survivor)], "") << survivor;
  EXPECT_EQ(reports[3], "killed by signal 9");
}

TEST_P(TwoShotRanks, GoOnWithoutARankThatIsStoppedInTheMiddleOfASum) {
  const std::vector<std::string> reports = run_processes(kRanks, [&](int process) -> std::string {
    const std::string trouble = take_device(process);
    if (!trouble.empty()) return trouble;
    NcclOptions first = options_of(process, kRanks);
    first.operation_timeout = 2s;
    std::string wrong = join_and_run(directory_.path(), first, GetParam(),
                                     [&](DeviceCollective& collective, const kernels::Stream& stream) -> std::string {
                                       std::string sums;
                                       for (int i = 0; i < 3; i++) sums += check_sum(collective, stream);
                                       if (process == kRanks - 1) raise(SIGSTOP);
                                       return sums + sum_until(CollectiveFailure::timeout, 20s, collective, stream);
                                     });
    if (!wrong.empty()) return wrong;
    NcclOptions second = options_of(process, kRanks - 1);
    second.prefix = "second";
    return join_and_run(
        directory_.path(), second, GetParam(),
        [](DeviceCollective& collective, const kernels::Stream& stream) { return check_sum(collective, stream); });
  });
  for (size_t survivor = 0; survivor + 1 < kRanks; survivor++) EXPECT_EQ(reports[survivor], "") << survivor;
}

// Whatever the table says of them, from the smallest on of which every rank owns a part. Small integers, whose sums are
// exact in fp16. 10,000 of them where LORIKEET_FULL is set (tests/gpu.sh peers).
TEST_P(TwoShotRanks, SumRightlyAtRandomSizes) {
  EXPECT_THAT(
      ask_ranks(kRanks,
                [](DeviceCollective& collective, const kernels::Stream& stream) -> std::string {
                  const int operations = std::getenv("LORIKEET_FULL") != nullptr ? 10'000 : 500;
                  constexpr double kLeast = 256 * kRanks;
                  constexpr double kMost = 786'432;
                  std::array<uint16_t, 256> halves{};
                  for (size_t i = 0; i < halves.size(); i++) halves[i] = kernels::float_to_half(static_cast<float>(i));
                  const auto rank = static_cast<size_t>(collective.rank());
                  const kernels::DeviceBuffer data = allocate(static_cast<uint64_t>(kMost) * 2);
                  std::vector<uint16_t> values(static_cast<size_t>(kMost)), wanted(static_cast<size_t>(kMost));
                  std::mt19937 random(9);  // the same on all ranks
                  for (int i = 0; i < operations; i++) {
                    const double share = static_cast<double>(random()) / 0x1p32;
                    const auto count = static_cast<size_t>(kLeast * std::pow(kMost / kLeast, share));
                    const size_t base = random() % 40;
                    for (size_t j = 0; j < count; j++) {
                      const size_t term = base + j % 7;
                      values[j] = halves[term + rank];
                      wanted[j] = halves[term * kRanks + kRanks * (kRanks - 1) / 2];
                    }
                    kernels::copy_to_device(data.data(), values.data(), count * 2, stream);
                    kernels::peer_two_shot_sum_cuda(*collective.peers(), data.data(), count, Dtype::f16, stream);
                    wait_for(collective, stream);
                    kernels::copy_to_host(values.data(), data.data(), count * 2, stream);
                    stream.synchronize();
                    if (!std::equal(values.begin(), values.begin() + static_cast<int64_t>(count), wanted.begin())) {
                      return fmt::format("sum {}, of {} values, is wrong", i, count);
                    }
                  }
                  return "";
                }),
      Each(""));
}

INSTANTIATE_TEST_SUITE_P(Communicators, TwoShotRanks, ::testing::Values(true), name_of_ranks);

}  // namespace
}  // namespace lorikeet::comm
