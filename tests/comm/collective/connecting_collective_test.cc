// With a communicator that writes down what is asked of it: no device is needed.
#include "comm/collective/connecting_collective.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <atomic>
#include <chrono>
#include <future>
#include <string>
#include <utility>
#include <vector>

namespace lorikeet::comm {
namespace {

using ::testing::ElementsAre;
using ::testing::IsEmpty;

// What the communicator and the one who connects it have seen.
struct Seen {
  std::vector<std::string> calls;
  std::promise<void> aborted;
  std::atomic<int> aborts{0};
};

class WritingCollective final : public DeviceCollective {
 public:
  explicit WritingCollective(Seen& seen) : seen_(seen) {}

  int rank() const override { return 1; }
  int size() const override { return 2; }
  void all_reduce(void*, size_t, kernels::Dtype, const kernels::Stream&) override { seen_.calls.emplace_back("sum"); }
  bool takes_norm(int32_t, int32_t, kernels::Dtype) const override { return false; }
  void all_reduce_norm(const kernels::AddRmsNormArgs&, const kernels::Stream&) override {}
  void all_gather(const void*, void*, size_t, const kernels::Stream&) override { seen_.calls.emplace_back("gather"); }
  const kernels::PeerGroup* peers() override { return nullptr; }
  void broadcast(void*, size_t, int, const kernels::Stream&) override { seen_.calls.emplace_back("broadcast"); }
  void wait(const kernels::Event&) override { seen_.calls.emplace_back("wait"); }
  void check() override { seen_.calls.emplace_back("check"); }
  void abort() override {
    if (seen_.aborts++ == 0) seen_.aborted.set_value();
  }

 private:
  Seen& seen_;
};

TEST(ConnectingCollective, RunsAnOperationOnceItIsConnectedAndNotBefore) {
  Seen seen;
  std::promise<void> asked;
  const auto collective = connect_behind(std::make_unique<WritingCollective>(seen), [&] {
    asked.get_future().wait();
    seen.calls.emplace_back("connect");
  });
  collective->check();
  EXPECT_EQ(collective->rank(), 1);
  EXPECT_EQ(collective->size(), 2);
  asked.set_value();
  collective->all_reduce(nullptr, 0, kernels::Dtype::f32, {});
  collective->all_gather(nullptr, nullptr, 0, {});
  collective->broadcast(nullptr, 0, 0, {});
  collective->wait({});
  collective->check();
  EXPECT_THAT(seen.calls, ElementsAre("connect", "sum", "gather", "broadcast", "wait", "check"));
}

TEST(ConnectingCollective, ThrowsWhatTheConnectionThrewAtEveryCall) {
  Seen seen;
  const auto collective = connect_behind(std::make_unique<WritingCollective>(seen),
                                         [] { throw CollectiveError(CollectiveFailure::timeout, "nobody came"); });
  for (int i = 0; i < 2; i++) {
    try {
      collective->all_reduce(nullptr, 0, kernels::Dtype::f32, {});
      FAIL() << "it summed";
    } catch (const CollectiveError& error) {
      EXPECT_EQ(error.failure(), CollectiveFailure::timeout);
      EXPECT_STREQ(error.what(), "nobody came");
    }
    EXPECT_THROW(collective->check(), CollectiveError);
  }
  EXPECT_THAT(seen.calls, IsEmpty());
}

TEST(ConnectingCollective, AbortsAConnectionThatIsBeingMadeWhenItGoes) {
  Seen seen;
  bool ended = false;
  {
    const auto collective = connect_behind(std::make_unique<WritingCollective>(seen), [&] {
      seen.aborted.get_future().wait();
      ended = true;
    });
    EXPECT_EQ(seen.aborts, 0);
  }
  EXPECT_TRUE(ended);
  EXPECT_THAT(seen.calls, IsEmpty());
}

TEST(ConnectingCollective, BeginsWhenAnOperationWantsItAndDoesNotRestTillThen) {
  Seen seen;
  const auto collective = connect_behind(
      std::make_unique<WritingCollective>(seen), [&] { seen.calls.emplace_back("connect"); }, std::chrono::hours(1));
  collective->check();
  collective->wait({});
  EXPECT_THAT(seen.calls, ElementsAre("connect", "wait"));
}

TEST(ConnectingCollective, DoesNotRestWhereItIsAborted) {
  Seen seen;
  std::promise<void> connecting;
  {
    const auto collective = connect_behind(
        std::make_unique<WritingCollective>(seen), [&] { connecting.set_value(); }, std::chrono::hours(1));
    collective->abort();
    connecting.get_future().wait();
  }
  EXPECT_THAT(seen.calls, IsEmpty());
}

TEST(ConnectingCollective, LeavesAConnectedOneToItsOwnEnd) {
  Seen seen;
  {
    const auto collective = connect_behind(std::make_unique<WritingCollective>(seen), [] {});
    collective->wait({});
  }
  EXPECT_EQ(seen.aborts, 0);
}

}  // namespace
}  // namespace lorikeet::comm
