// What the collectives do when a rank dies, stops, leaves, is late or is told to abort.
#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <signal.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <algorithm>
#include <atomic>
#include <chrono>
#include <fstream>
#include <functional>
#include <future>
#include <optional>
#include <string>
#include <thread>
#include <tuple>
#include <utility>
#include <vector>

#include "comm/collective/collective.h"
#include "comm/collective/group.h"
#include "tests/comm/collective/file_rendezvous.h"
#include "tests/comm/collective/ranks.h"

namespace lorikeet::comm {
namespace {

using namespace std::chrono_literals;
using Clock = std::chrono::steady_clock;
using ::testing::AnyOf;
using ::testing::Each;
using ::testing::HasSubstr;

// Far below the operation timeout of 30 s, far above what a busy machine needs.
constexpr auto kAtOnce = 10s;

// How long an abort may take. The thread sanitizer makes a busy machine too slow for any figure.
#if defined(__SANITIZE_THREAD__)
constexpr std::chrono::milliseconds kAbortTime = kAtOnce;
#else
constexpr std::chrono::milliseconds kAbortTime = 100ms;
#endif

struct Operation {
  const char* name;
  std::function<void(Collective&)> call;
};

std::ostream& operator<<(std::ostream& out, const Operation& operation) {
  return out << operation.name;
}

// Large ones do not fit the network's buffers, so that sends wait too.
std::vector<Operation> operations() {
  return {
      {"SmallAllReduce",
       [](Collective& collective) {
         std::vector<float> data(100, 1);
         collective.all_reduce(data.data(), data.size());
       }},
      {"LargeAllReduce",
       [](Collective& collective) {
         std::vector<float> data(4'000'000, 1);
         collective.all_reduce(data.data(), data.size());
       }},
      {"AllGather",
       [](Collective& collective) {
         std::vector<char> data(4'000'000 * collective.size());
         collective.all_gather(data.data() + 4'000'000 * collective.rank(), data.data(), 4'000'000);
       }},
      {"Broadcast",
       [](Collective& collective) {
         std::vector<char> data(16'000'000);
         collective.broadcast(data.data(), data.size(), 0);
       }},
      {"Barrier", [](Collective& collective) { collective.barrier(); }},
  };
}

// Calls the operation until it fails. "" when it fails as expected and the communicator is dead from then on.
std::string fails_with(CollectiveFailure expected, Collective& collective, const Operation& operation,
                       std::chrono::milliseconds limit = kAtOnce) {
  const Clock::time_point started = Clock::now();
  std::optional<CollectiveFailure> failure;
  while (!failure) {
    try {
      operation.call(collective);
    } catch (const CollectiveError& error) {
      failure = error.failure();
    }
  }
  if (*failure != expected) return fmt::format("failure {}", static_cast<int>(*failure));
  if (Clock::now() - started > limit) return "failed too late";
  for (const Operation& later : operations()) {
    const Clock::time_point begin = Clock::now();
    try {
      later.call(collective);
      return fmt::format("{} worked on a dead communicator", later.name);
    } catch (const CollectiveError& error) {
      if (error.failure() != expected) return fmt::format("{} failed in another way: {}", later.name, error.what());
    }
    if (Clock::now() - begin > limit) return fmt::format("{} failed too late", later.name);
  }
  return "";
}

bool is_last(const Collective& collective) {
  return collective.rank() == collective.size() - 1;
}

// Returns once the thread sleeps, as one does that waits for a peer.
void wait_until_asleep(pid_t thread) {
  while (true) {
    std::ifstream file(fmt::format("/proc/self/task/{}/stat", thread));
    std::string line;
    std::getline(file, line);
    const size_t name_end = line.rfind(')');
    if (name_end != std::string::npos && line.size() > name_end + 2 && line[name_end + 2] == 'S') return;
    std::this_thread::yield();
  }
}

// Aborts while the calling thread waits in the operation; how long it took until the operation ended.
std::chrono::microseconds abort_during(Collective& collective, const Operation& operation) {
  const auto thread = static_cast<pid_t>(syscall(SYS_gettid));
  Clock::time_point aborted;
  std::thread aborter([&] {
    wait_until_asleep(thread);
    aborted = Clock::now();
    collective.abort();
  });
  Clock::time_point ended;
  try {
    operation.call(collective);
    ADD_FAILURE() << operation.name << " completed";
  } catch (const CollectiveError& error) {
    ended = Clock::now();
    EXPECT_EQ(error.failure(), CollectiveFailure::aborted) << error.what();
  }
  aborter.join();
  return std::chrono::duration_cast<std::chrono::microseconds>(ended - aborted);
}

// --- processes that die or stop

class ProcessFailureTest : public ::testing::TestWithParam<std::tuple<int, Operation>> {
 protected:
  static int size() { return std::get<0>(GetParam()); }
  static const Operation& operation() { return std::get<1>(GetParam()); }
};

TEST_P(ProcessFailureTest, AKilledPeerIsLostAtOnce) {
  const auto reports = run_ranks(RankKind::gloo_processes, size(), [](Collective& collective) -> std::string {
    if (is_last(collective)) {
      for (int i = 0; i < 3; ++i) operation().call(collective);
      raise(SIGKILL);
    }
    return fails_with(CollectiveFailure::peer_lost, collective, operation());
  });
  EXPECT_EQ(reports.back(), "killed by signal 9");
  EXPECT_THAT(std::vector(reports.begin(), reports.end() - 1), Each(""));
}

TEST_P(ProcessFailureTest, AStoppedPeerIsATimeoutToOneRankAndALossToTheOthers) {
  GlooOptions options;
  options.operation_timeout = 300ms;
  const auto reports = run_ranks(
      RankKind::gloo_processes, size(),
      [](Collective& collective) -> std::string {
        collective.barrier();
        if (is_last(collective)) raise(SIGSTOP);
        // Whose clock runs out first closes its connections, which the others see.
        const std::string timeout = fails_with(CollectiveFailure::timeout, collective, operation());
        if (timeout.empty()) return "timeout";
        return fails_with(CollectiveFailure::peer_lost, collective, operation()).empty() ? "peer lost" : timeout;
      },
      options);
  const std::vector<std::string> survivors(reports.begin(), reports.end() - 1);
  EXPECT_THAT(survivors, Each(AnyOf("timeout", "peer lost")));
  EXPECT_THAT(survivors, ::testing::Contains("timeout"));
}

TEST_P(ProcessFailureTest, AnAbortEndsTheWaitForAStoppedPeerWithin100Milliseconds) {
  // The machine may be busy: the best of a few counts.
  constexpr int kTries = 5;
  std::string reports_of_all;
  for (int i = 0; i < kTries; ++i) {
    const auto reports = run_ranks(RankKind::gloo_processes, size(), [](Collective& collective) -> std::string {
      collective.barrier();
      if (is_last(collective)) raise(SIGSTOP);
      if (collective.rank() > 0) return fails_with(CollectiveFailure::peer_lost, collective, operation());
      const std::chrono::microseconds time = abort_during(collective, operation());
      const std::string dead = fails_with(CollectiveFailure::aborted, collective, operation());
      if (!dead.empty()) return dead;
      return time <= kAbortTime ? "" : fmt::format("{} us", time.count());
    });
    const std::vector<std::string> survivors(reports.begin(), reports.end() - 1);
    if (std::all_of(survivors.begin(), survivors.end(), [](const std::string& text) { return text.empty(); })) return;
    for (const std::string& survivor : survivors) reports_of_all += survivor + "\n";
  }
  FAIL() << reports_of_all;
}

std::string name_of_process_parameters(const ::testing::TestParamInfo<std::tuple<int, Operation>>& info) {
  return fmt::format("{}Of{}", std::get<1>(info.param).name, std::get<0>(info.param));
}

INSTANTIATE_TEST_SUITE_P(All, ProcessFailureTest,
                         ::testing::Combine(::testing::Values(2, 3), ::testing::ValuesIn(operations())),
                         name_of_process_parameters);

// --- threads

class ThreadFailureTest : public ::testing::TestWithParam<std::tuple<RankKind, int>> {
 protected:
  static RankKind kind() { return std::get<0>(GetParam()); }
  static int size() { return std::get<1>(GetParam()); }
};

TEST_P(ThreadFailureTest, ARankThatThrowsItsEndAwayIsLost) {
  EXPECT_THAT(run_ranks(kind(), size(),
                        [](Collective& collective) -> std::string {
                          for (const Operation& operation : operations()) operation.call(collective);
                          if (is_last(collective)) return "";
                          return fails_with(CollectiveFailure::peer_lost, collective, operations().front());
                        }),
              Each(""));
}

TEST_P(ThreadFailureTest, AnAbortWithoutAnOperationEndsAllLaterOnes) {
  std::atomic<int> past_the_barrier{0};  // an abort may end the barrier of a rank that has not left it yet
  EXPECT_THAT(run_ranks(kind(), size(),
                        [&](Collective& collective) -> std::string {
                          collective.barrier();
                          ++past_the_barrier;
                          if (!is_last(collective)) {
                            return fails_with(CollectiveFailure::peer_lost, collective, operations().front());
                          }
                          while (past_the_barrier < collective.size()) std::this_thread::yield();
                          collective.abort();
                          collective.abort();
                          return fails_with(CollectiveFailure::aborted, collective, operations().back());
                        }),
              Each(""));
}

TEST_P(ThreadFailureTest, AnAbortEndsTheWaitForALatePeer) {
  std::atomic<int> past_the_barrier{0}, aborted{0};  // the former as above
  EXPECT_THAT(run_ranks(kind(), size(),
                        [&](Collective& collective) -> std::string {
                          collective.barrier();
                          ++past_the_barrier;
                          if (is_last(collective)) {
                            while (aborted == 0) std::this_thread::yield();
                            return fails_with(CollectiveFailure::peer_lost, collective, operations().front());
                          }
                          if (collective.rank() > 0) {
                            return fails_with(CollectiveFailure::peer_lost, collective, operations().front());
                          }
                          while (past_the_barrier < collective.size()) std::this_thread::yield();
                          abort_during(collective, operations().front());
                          aborted = 1;
                          return "";
                        }),
              Each(""));
}

TEST_P(ThreadFailureTest, AnAbortAtAnyTimeEndsARunningExchange) {
  for (int round = 0; round < 10; ++round) {
    EXPECT_THAT(run_ranks(kind(), size(),
                          [round](Collective& collective) -> std::string {
                            std::vector<float> data(1000 * (round + 1), 1);
                            std::optional<std::thread> aborter;
                            std::string report;
                            try {
                              collective.barrier();  // others may have left it and aborted
                              for (int i = 0;; ++i) {
                                if (i == 3 * round && collective.rank() == round % collective.size()) {
                                  aborter.emplace([&collective] { collective.abort(); });
                                }
                                collective.all_reduce(data.data(), data.size());
                              }
                            } catch (const CollectiveError& error) {
                              const bool own = aborter.has_value();
                              const auto expected = own ? CollectiveFailure::aborted : CollectiveFailure::peer_lost;
                              if (error.failure() != expected) report = error.what();
                            }
                            if (aborter) aborter->join();
                            return report;
                          }),
                Each(""));
  }
}

INSTANTIATE_TEST_SUITE_P(All, ThreadFailureTest,
                         ::testing::Combine(::testing::Values(RankKind::local_threads, RankKind::gloo_threads),
                                            ::testing::Values(2, 3, 4)),
                         [](const auto& parameters) {
                           return fmt::format("{}Of{}", name_of(std::get<0>(parameters.param)),
                                              std::get<1>(parameters.param));
                         });

// --- making a communicator

TEST(GlooCollective, RefusesARankThatDoesNotExist) {
  const tests::TempDir directory;
  FileRendezvous store(directory.path());
  GlooOptions options;
  options.rank = 2;
  options.size = 2;
  const auto collective = make_gloo_collective(store, options);
  ASSERT_FALSE(collective);
  EXPECT_EQ(collective.error().message, "a communicator has no rank 2 of 2");
}

TEST(GlooCollective, SaysThatAPeerDidNotCome) {
  const tests::TempDir directory;
  FileRendezvous store(directory.path());
  GlooOptions options;
  options.size = 2;
  options.prefix = "epoch-7";
  options.connect_timeout = 50ms;
  const auto collective = make_gloo_collective(store, options);
  ASSERT_FALSE(collective);
  EXPECT_THAT(collective.error().message, HasSubstr("rank 0 of 2 could not join epoch-7"));
}

TEST(GlooCollective, RefusesAnAddressThatIsNotOfThisHost) {
  const tests::TempDir directory;
  FileRendezvous store(directory.path());
  GlooOptions options;
  options.size = 2;
  options.prefix = "epoch-1";
  options.connect_timeout = 50ms;
  const std::pair<std::string, std::string> cases[] = {
      {"no such host", "rank 0 of 2 could not join epoch-1: no such host has no address: "},
      {"192.0.2.1", "rank 0 of 2 could not join epoch-1: 192.0.2.1 is no address of this host: "},  // RFC 5737
  };
  for (const auto& [address, message] : cases) {
    options.interface_address = address;
    const auto collective = make_gloo_collective(store, options);
    ASSERT_FALSE(collective);
    EXPECT_THAT(collective.error().message, HasSubstr(message));
  }
}

TEST(GlooCollective, MeetsTheOthersAtANameOfThisHost) {
  const tests::TempDir directory;
  const auto join = [&](int rank) {
    FileRendezvous store(directory.path());
    GlooOptions options;
    options.rank = rank;
    options.size = 2;
    options.prefix = "epoch-1";
    options.interface_address = "localhost";
    return make_gloo_collective(store, options);
  };
  auto other = std::async(std::launch::async, join, 1);
  const auto first = join(0);
  const auto second = other.get();
  EXPECT_TRUE(first) << first.error().message;
  EXPECT_TRUE(second) << second.error().message;
}

TEST(GlooCollective, RefusesRubbishInTheStore) {
  const tests::TempDir directory;
  FileRendezvous store(directory.path());
  GlooOptions options;
  options.size = 2;
  options.prefix = "epoch-1";
  options.connect_timeout = 200ms;
  for (size_t size : {0, 1, 7, 128, 1000}) {
    store.set("epoch-1/1", std::vector<uint8_t>(size, 0xA5));
    EXPECT_FALSE(make_gloo_collective(store, options)) << size << " bytes";
  }
}

TEST(GlooCollective, ReformsUnderANewPrefixAfterALoss) {
  const tests::TempDir directory;
  std::vector<std::thread> ranks;
  std::vector<float> sums(3, 0);
  for (int rank = 0; rank < 3; ++rank) {
    ranks.emplace_back([&, rank] {
      FileRendezvous store(directory.path());
      GlooOptions options;
      options.rank = rank;
      options.size = 3;
      options.prefix = "epoch-1";
      auto first = make_gloo_collective(store, options);
      ASSERT_TRUE(first) << first.error().message;
      (*first)->barrier();
      if (rank == 2) return;  // lost
      EXPECT_EQ(fails_with(CollectiveFailure::peer_lost, **first, operations().front()), "");
      first->reset();
      options.size = 2;
      options.prefix = "epoch-2";
      auto second = make_gloo_collective(store, options);
      ASSERT_TRUE(second) << second.error().message;
      sums[rank] = static_cast<float>(rank + 1);
      (*second)->all_reduce(&sums[rank], 1);
      (*second)->barrier();
    });
  }
  for (std::thread& rank : ranks) rank.join();
  EXPECT_EQ(sums, (std::vector<float>{3, 3, 0}));
}

}  // namespace
}  // namespace lorikeet::comm
