#include "actors/head/live_requests.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <filesystem>

namespace lorikeet::actors {
namespace {

using engine::SequenceId;
using ::testing::ElementsAre;

class LiveRequestsTest : public ::testing::Test {
 protected:
  static void SetUpTestSuite() {
    const auto dir = std::filesystem::path(LORIKEET_SOURCE_DIR) / "examples/models/tiny-qwen2-gptq-int4";
    tokenizer_ = model::Tokenizer::load(dir).value();
  }

  void add(uint64_t id, uint64_t client, const std::string& name) {
    live_.add(SequenceId(id), client, name, TextStream(tokenizer_, {}));
  }

  static inline std::shared_ptr<const model::Tokenizer> tokenizer_;
  LiveRequests live_;
};

TEST_F(LiveRequestsTest, FindsRequestsByTheirClientsNames) {
  add(1, 10, "a");
  add(2, 10, "b");
  add(3, 11, "a");
  EXPECT_EQ(live_.find(10, "a"), SequenceId(1));
  EXPECT_EQ(live_.find(11, "a"), SequenceId(3));
  EXPECT_FALSE(live_.find(11, "b"));
  EXPECT_FALSE(live_.find(12, "a"));
  EXPECT_EQ(live_.find(SequenceId(2))->name, "b");
  live_.erase(SequenceId(1));
  EXPECT_FALSE(live_.find(10, "a"));
  EXPECT_EQ(live_.find(SequenceId(1)), nullptr);
  live_.erase(SequenceId(1));
  add(4, 10, "a");
  EXPECT_EQ(live_.find(10, "a"), SequenceId(4));
}

TEST_F(LiveRequestsTest, KeepsTheAnswersToARequestTogether) {
  for (const int32_t index : {0, 1, 2}) {
    live_.add(SequenceId(static_cast<uint64_t>(index) + 1), 10, "a", TextStream(tokenizer_, {}), index);
  }
  add(9, 10, "b");
  EXPECT_THAT(live_.choices(10, "a"), ElementsAre(SequenceId(1), SequenceId(2), SequenceId(3)));
  EXPECT_EQ(live_.find(SequenceId(3))->delta.index, 2);
  live_.erase(SequenceId(1));
  EXPECT_EQ(live_.find(10, "a"), SequenceId(2));
  EXPECT_THAT(live_.abandon(10, "a"), ElementsAre(SequenceId(2), SequenceId(3)));
  EXPECT_TRUE(live_.find(SequenceId(3))->abandoned);
  EXPECT_FALSE(live_.find(SequenceId(3))->client_gone) << "it is another answer that has failed";
  EXPECT_FALSE(live_.find(SequenceId(9))->abandoned);
  EXPECT_FALSE(live_.find(10, "a"));
  EXPECT_TRUE(live_.abandon(10, "a").empty());
  live_.erase(SequenceId(2));
  EXPECT_EQ(live_.find(10, "b"), SequenceId(9));
}

TEST_F(LiveRequestsTest, AbandonsAllRequestsOfAClient) {
  add(1, 10, "a");
  add(2, 11, "a");
  add(3, 10, "b");
  EXPECT_THAT(live_.abandon(10), ElementsAre(SequenceId(1), SequenceId(3)));
  EXPECT_TRUE(live_.find(SequenceId(1))->abandoned);
  EXPECT_TRUE(live_.find(SequenceId(1))->client_gone);
  EXPECT_FALSE(live_.find(SequenceId(2))->abandoned);
  EXPECT_FALSE(live_.find(10, "a"));
  EXPECT_TRUE(live_.abandon(10).empty());
  live_.erase(SequenceId(1));
  live_.erase(SequenceId(3));
  EXPECT_THAT(live_.ids(), ElementsAre(SequenceId(2)));
  EXPECT_THAT(live_.abandon(11, LiveRequests::Client::answered), ElementsAre(SequenceId(2)));
  EXPECT_TRUE(live_.find(SequenceId(2))->abandoned);
  EXPECT_FALSE(live_.find(SequenceId(2))->client_gone);
}

}  // namespace
}  // namespace lorikeet::actors
