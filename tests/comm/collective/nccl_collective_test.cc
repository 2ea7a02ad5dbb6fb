// What both communicators between GPUs must do.
#include "comm/collective/nccl_collective.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <signal.h>

#include <algorithm>
#include <atomic>
#include <cstring>
#include <thread>

#include "tests/comm/collective/file_rendezvous.h"
#include "tests/comm/collective/gpu_ranks.h"
#include "tests/comm/collective/processes.h"

namespace lorikeet::comm {
namespace {

using DeviceGroup = GpuRanks;
using namespace std::chrono_literals;
using kernels::Dtype;
using Clock = std::chrono::steady_clock;
using ::testing::Each;
using ::testing::HasSubstr;

template <class T>
std::string check_sum(DeviceCollective& collective, const kernels::Stream& stream, Dtype dtype, size_t count,
                      T (*stored)(int)) {
  // Small integers: exact in every type and every order.
  std::vector<T> values(count);
  std::vector<T> expected(count);
  for (size_t i = 0; i < count; i++) {
    const int term = static_cast<int>(i % 7);
    values[i] = stored(term + collective.rank());
    expected[i] = stored(term * collective.size() + collective.size() * (collective.size() - 1) / 2);
  }
  const kernels::DeviceBuffer data = allocate(count * sizeof(T));
  kernels::copy_to_device(data.data(), values.data(), data.bytes(), stream);
  collective.all_reduce(data.data(), count, dtype, stream);
  wait_for(collective, stream);
  kernels::copy_to_host(values.data(), data.data(), data.bytes(), stream);
  stream.synchronize();
  return values == expected ? "" : fmt::format("a sum of {} {} is wrong", count, kernels::name_of(dtype));
}

uint16_t stored_f16(int value) {  // of 0 .. 2047, by normalising
  if (value == 0) return 0;
  int exponent = 0;
  while ((value >> (exponent + 1)) != 0) exponent++;
  return static_cast<uint16_t>(((exponent + 15) << 10) | ((value << (10 - exponent)) & 0x3ff));
}
uint16_t stored_bf16(int value) {  // of 0 .. 255: the upper half of the float is exact
  const auto f = static_cast<float>(value);
  uint32_t bits = 0;
  std::memcpy(&bits, &f, 4);
  return static_cast<uint16_t>(bits >> 16);
}
float stored_f32(int value) {
  return static_cast<float>(value);
}

TEST_P(DeviceGroup, SumsOnEveryRankInAllTypes) {
  for (const int size : {1, 2, 4}) {
    EXPECT_THAT(ask_ranks(size,
                          [](DeviceCollective& collective, const kernels::Stream& stream) {
                            std::string wrong;
                            for (const size_t count : {size_t{1}, size_t{5120}, size_t{1} << 20}) {
                              wrong += check_sum<uint16_t>(collective, stream, Dtype::f16, count, stored_f16);
                              wrong += check_sum<uint16_t>(collective, stream, Dtype::bf16, count, stored_bf16);
                              wrong += check_sum<float>(collective, stream, Dtype::f32, count, stored_f32);
                            }
                            return wrong;
                          }),
                Each(""))
        << size << " ranks";
  }
}

TEST_P(DeviceGroup, GathersByRankAndBroadcasts) {
  EXPECT_THAT(ask_ranks(3,
                        [](DeviceCollective& collective, const kernels::Stream& stream) -> std::string {
                          const size_t part = 1000;
                          const auto rank = static_cast<size_t>(collective.rank());
                          std::vector<uint8_t> bytes(3 * part, 0xee);
                          std::fill_n(bytes.begin() + static_cast<int64_t>(rank * part), part,
                                      static_cast<uint8_t>(rank + 1));
                          const kernels::DeviceBuffer data = allocate(bytes.size());
                          kernels::copy_to_device(data.data(), bytes.data(), bytes.size(), stream);
                          collective.all_gather(data.as<uint8_t>() + rank * part, data.data(), part, stream);
                          wait_for(collective, stream);
                          kernels::copy_to_host(bytes.data(), data.data(), bytes.size(), stream);
                          stream.synchronize();
                          for (size_t i = 0; i < bytes.size(); i++) {
                            if (bytes[i] != i / part + 1) return fmt::format("byte {} is {}", i, bytes[i]);
                          }
                          kernels::fill_bytes(data.data(), static_cast<uint8_t>(rank), bytes.size(), stream);
                          collective.broadcast(data.data(), bytes.size(), 2, stream);
                          wait_for(collective, stream);
                          kernels::copy_to_host(bytes.data(), data.data(), bytes.size(), stream);
                          stream.synchronize();
                          reduce_and_wait(collective, stream, 1);  // the root is done before the others
                          return std::count(bytes.begin(), bytes.end(), 2) == static_cast<int64_t>(bytes.size())
                                     ? ""
                                     : "a broadcast is wrong";
                        }),
              Each(""));
}

TEST_P(DeviceGroup, ReplaysWithinAGraph) {
  EXPECT_THAT(ask_ranks(2,
                        [](DeviceCollective& collective, const kernels::Stream& stream) -> std::string {
                          const size_t count = 5120;
                          std::vector<float> values(count, 1);
                          const kernels::DeviceBuffer data = allocate(count * sizeof(float));
                          collective.all_reduce(data.data(), count, Dtype::f32, stream);  // connects, outside the graph
                          wait_for(collective, stream);
                          kernels::copy_to_device(data.data(), values.data(), data.bytes(), stream);
                          stream.synchronize();
                          const Result<kernels::Graph> graph = kernels::Graph::capture(stream, [&] {
                            for (int i = 0; i < 3; i++) collective.all_reduce(data.data(), count, Dtype::f32, stream);
                          });
                          if (!graph) return graph.error().message;
                          for (int i = 0; i < 4; i++) graph->launch(stream);
                          wait_for(collective, stream);
                          kernels::copy_to_host(values.data(), data.data(), data.bytes(), stream);
                          stream.synchronize();
                          return std::count(values.begin(), values.end(), 4096.0F) == static_cast<int64_t>(count)
                                     ? ""
                                     : fmt::format("{} instead of 2^12", values[0]);
                        }),
              Each(""));
}

TEST_P(DeviceGroup, ReportsAKilledPeerAtOnce) {
  const std::vector<std::string> reports =
      run_ranks(2, [](DeviceCollective& collective, const kernels::Stream& stream) -> std::string {
        reduce_and_wait(collective, stream, 5120);
        if (collective.rank() == 1) raise(SIGKILL);
        const Clock::time_point started = Clock::now();
        try {
          for (;;) reduce_and_wait(collective, stream, 5120);
        } catch (const CollectiveError& error) {
          if (error.failure() != CollectiveFailure::peer_lost) return std::string("not peer_lost: ") + error.what();
        }
        if (Clock::now() - started > 10s) return "it took too long";  // the operation timeout is 30 s
        try {
          reduce_and_wait(collective, stream, 5120);
        } catch (const CollectiveError&) {
          stream.synchronize();  // the stream is free again
          return "";
        }
        return "a dead communicator went on";
      });
  EXPECT_EQ(reports[0], "");
  EXPECT_EQ(reports[1], "killed by signal 9");
}

TEST_P(DeviceGroup, ReportsAStoppedPeerAfterTheOperationTimeout) {
  const std::vector<std::string> reports = run_ranks(
      2,
      [](DeviceCollective& collective, const kernels::Stream& stream) -> std::string {
        reduce_and_wait(collective, stream, 5120);
        if (collective.rank() == 1) raise(SIGSTOP);
        const Clock::time_point started = Clock::now();
        try {
          for (;;) reduce_and_wait(collective, stream, 5120);
        } catch (const CollectiveError& error) {
          if (error.failure() != CollectiveFailure::timeout) return std::string("not a timeout: ") + error.what();
        }
        return Clock::now() - started < 20s ? "" : "it took too long";
      },
      2s);
  EXPECT_EQ(reports[0], "");
}

TEST_P(DeviceGroup, AbortsAWaitFromAnotherThread) {
  const std::vector<std::string> reports =
      run_ranks(2, [](DeviceCollective& collective, const kernels::Stream& stream) -> std::string {
        reduce_and_wait(collective, stream, 5120);
        if (collective.rank() == 1) raise(SIGSTOP);
        std::thread aborter([&] { collective.abort(); });
        std::string wrong;
        try {
          for (;;) reduce_and_wait(collective, stream, 5120);
        } catch (const CollectiveError& error) {
          if (error.failure() != CollectiveFailure::aborted) wrong = std::string("not aborted: ") + error.what();
        }
        aborter.join();
        return wrong;
      });
  EXPECT_EQ(reports[0], "");
}

TEST_P(DeviceGroup, TakesNoSumForWholeThatAPeerHasGivenUp) {
  const std::vector<std::string> reports =
      run_ranks(2, [](DeviceCollective& collective, const kernels::Stream& stream) -> std::string {
        constexpr size_t kCount = size_t{1} << 19;  // in two shots, over peers
        std::atomic<int> done{0};
        std::thread aborter;
        if (collective.rank() == 0) {
          aborter = std::thread([&] {
            while (done < 20) std::this_thread::yield();
            collective.abort();
          });
        }
        std::string wrong;
        try {
          while (wrong.empty()) {
            wrong = check_sum<float>(collective, stream, Dtype::f32, kCount, stored_f32);
            ++done;
          }
        } catch (const CollectiveError&) {
        }
        done = 20;
        if (aborter.joinable()) aborter.join();
        return wrong;
      });
  EXPECT_THAT(reports, Each(""));
}

TEST_P(DeviceGroup, ASurvivorJoinsANewCommunicatorWithANewRank) {
  // Processes 0 and 1 are the first group; 1 dies, and process 2 takes its place.
  const std::vector<std::string> reports = run_processes(3, [&](int process) -> std::string {
    const std::string trouble = take_device(process);
    if (!trouble.empty()) return trouble;
    FileRendezvous store(directory_.path());
    NcclOptions second = options_of(process == 0 ? 0 : 1, 2);
    second.prefix = "second";
    if (process == 2) {
      store.get("first_is_over", 60s);
    } else {
      const std::string wrong =
          join_and_run(directory_.path(), options_of(process, 2), GetParam(),
                       [&](DeviceCollective& collective, const kernels::Stream& stream) -> std::string {
                         reduce_and_wait(collective, stream, 100);
                         if (process == 1) raise(SIGKILL);
                         try {
                           for (;;) reduce_and_wait(collective, stream, 100);
                         } catch (const CollectiveError&) {
                           store.set("first_is_over", {1});
                         }
                         return "";
                       });
      if (!wrong.empty()) return wrong;
    }
    return join_and_run(directory_.path(), second, GetParam(),
                        [](DeviceCollective& collective, const kernels::Stream& stream) {
                          return check_sum<float>(collective, stream, Dtype::f32, 5120, stored_f32);
                        });
  });
  EXPECT_EQ(reports[0], "");
  EXPECT_EQ(reports[1], "killed by signal 9");
  EXPECT_EQ(reports[2], "");
}

TEST_P(DeviceGroup, SumsBehindAConnectionThatIsMadeMeanwhile) {
  EXPECT_THAT(run_processes(2,
                            [&](int rank) {
                              const std::string trouble = take_device(rank);
                              if (!trouble.empty()) return trouble;
                              NcclOptions options = options_of(rank, 2);
                              options.connect_behind = true;
                              return join_and_run(
                                  directory_.path(), options, GetParam(),
                                  [](DeviceCollective& collective, const kernels::Stream& stream) {
                                    std::string wrong;
                                    for (const size_t count : {size_t{100}, size_t{1} << 20, size_t{100}}) {
                                      collective.check();
                                      wrong += check_sum<float>(collective, stream, Dtype::f32, count, stored_f32);
                                    }
                                    return wrong;
                                  });
                            }),
              Each(""));
}

// As ranks do when another one is lost.
TEST_P(DeviceGroup, TakesThePlaceOfOneThatWasGivenUpAndEndsItWhenItConnects) {
  const auto body = [&](int rank) -> std::string {
    const std::string trouble = take_device(rank);
    if (!trouble.empty()) return trouble;
    NcclOptions options = options_of(rank, 2);
    options.retired = std::make_shared<RetiredCommunicators>();
    std::string wrong = join_and_run(directory_.path(), options, GetParam(),
                                     [](DeviceCollective& first, const kernels::Stream& stream) {
                                       std::string sum;
                                       for (const size_t count : {size_t{100}, size_t{1} << 20}) {
                                         sum += check_sum<float>(first, stream, Dtype::f32, count, stored_f32);
                                       }
                                       first.abort();
                                       try {
                                         first.check();
                                       } catch (const CollectiveError&) {
                                         return sum;
                                       }
                                       return sum + "an aborted communicator went on; ";
                                     });
    if (options.retired->size() != 1) wrong += "the first one ended at once; ";
    // One that is given up before it connects leaves nothing.
    options.prefix = "second";
    options.connect_behind = true;
    wrong +=
        join_and_run(directory_.path(), options, GetParam(), [&](DeviceCollective& second, const kernels::Stream&) {
          second.abort();
          return std::string();
        });
    if (GetParam() && options.retired->size() != 1) wrong += "one that never connected ended another; ";
    options.prefix = "third";
    wrong += join_and_run(directory_.path(), options, GetParam(),
                          [&](DeviceCollective& third, const kernels::Stream& stream) {
                            std::string sum = check_sum<float>(third, stream, Dtype::f32, 100, stored_f32);
                            const kernels::DeviceBuffer sent = allocate(4);
                            third.broadcast(sent.data(), sent.bytes(), 0, stream);  // by NCCL at every size
                            wait_for(third, stream);
                            return sum;
                          });
    if (options.retired->size() != 0) wrong += "the first one was kept; ";
    return wrong;
  };
  EXPECT_THAT(run_processes(2, body), Each(""));
}

TEST_P(DeviceGroup, SaysThatARankDidNotCome) {
  const std::vector<std::string> reports = run_processes(1, [&](int rank) {
    const std::string trouble = take_device(rank);
    if (!trouble.empty()) return trouble;
    NcclOptions options = options_of(0, 2);
    options.connect_timeout = 1s;
    return join_and_run(directory_.path(), options, GetParam(),
                        [](DeviceCollective&, const kernels::Stream&) { return std::string("it connected"); });
  });
  EXPECT_THAT(reports[0], HasSubstr("rank 0 of 2 could not join test"));
}

INSTANTIATE_TEST_SUITE_P(Communicators, DeviceGroup, ::testing::Bool(), name_of_ranks);

TEST(NcclOptions, OfNoRankOfTheGroupAreRefused) {
  const tests::TempDir directory;
  FileRendezvous store(directory.path());
  for (const auto& [rank, size] : std::vector<std::pair<int, int>>{{-1, 2}, {2, 2}, {0, 0}}) {
    const auto collective = make_nccl_collective(store, options_of(rank, size));
    ASSERT_FALSE(collective);
    EXPECT_EQ(collective.error().message, fmt::format("a communicator has no rank {} of {}", rank, size));
  }
}

}  // namespace
}  // namespace lorikeet::comm
