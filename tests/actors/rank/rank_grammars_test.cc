#include "actors/rank/rank_grammars.h"

#include <gmock/gmock.h>

#include <condition_variable>
#include <deque>
#include <future>
#include <mutex>

namespace lorikeet::actors {
namespace {

class NoRules final : public model::CompiledGrammar {
 public:
  std::unique_ptr<model::GrammarState> begin(const std::vector<int32_t>&) const override { return nullptr; }
  size_t bytes() const override { return 77; }
};

// Holds the compiling thread where a grammar is "slow", until it is let go.
class Compiler final : public model::GrammarCompiler {
 public:
  Result<std::shared_ptr<const model::CompiledGrammar>> compile(const model::GrammarSpec& spec) override {
    if (spec.text == "slow") {
      begun.set_value();
      go_on.get_future().wait();
    }
    if (spec.text == "wrong") return fail("it is wrong");
    return std::make_shared<const NoRules>();
  }
  std::promise<void> begun, go_on;
};

class RankGrammarsTest : public ::testing::Test {
 protected:
  GrammarCompiled next() {
    std::unique_lock lock(mutex_);
    wake_.wait(lock, [this] { return !answers_.empty(); });
    GrammarCompiled answer = answers_.front().first;
    EXPECT_EQ(answers_.front().second, 3u);
    answers_.pop_front();
    return answer;
  }

  std::mutex mutex_;
  std::condition_variable wake_;
  std::deque<std::pair<GrammarCompiled, uint64_t>> answers_;
  std::shared_ptr<Compiler> compiler_ = std::make_shared<Compiler>();
  RankGrammars grammars_{std::make_shared<model::GrammarSource>(
                             [this]() -> Result<std::shared_ptr<model::GrammarCompiler>> { return compiler_; }),
                         [this](const GrammarCompiled& answer, uint64_t epoch) {
                           {
                             const std::lock_guard lock(mutex_);
                             answers_.emplace_back(answer, epoch);
                           }
                           wake_.notify_one();
                         }};
};

TEST_F(RankGrammarsTest, CompileWhatArrivesAndSaySo) {
  ASSERT_TRUE(grammars_.add({"d1", 1, "a+"}, 3));
  const GrammarCompiled done = next();
  EXPECT_EQ(done.digest, "d1");
  EXPECT_EQ(done.bytes, 77u);
  EXPECT_EQ(done.error, "");
  EXPECT_TRUE(grammars_.find("d1"));
  EXPECT_FALSE(grammars_.find("d2")) << "what was never sent is not waited for";
  ASSERT_TRUE(grammars_.add({"d3", 1, "wrong"}, 3));
  EXPECT_EQ(next().error, "it is wrong");
  EXPECT_FALSE(grammars_.find("d3"));
}

TEST_F(RankGrammarsTest, HaveWhoeverNeedsOneWaitUntilItIsThere) {
  ASSERT_TRUE(grammars_.add({"d1", 1, "slow"}, 3));
  compiler_->begun.get_future().wait();
  auto found = std::async(std::launch::async, [this] { return grammars_.find("d1"); });
  compiler_->go_on.set_value();
  EXPECT_TRUE(found.get());
}

TEST_F(RankGrammarsTest, ForgetWhatIsDroppedOrOfAnEpochThatIsOver) {
  ASSERT_TRUE(grammars_.add({"d1", 1, "a+"}, 3));
  next();
  grammars_.drop("d1");
  EXPECT_FALSE(grammars_.find("d1"));
  ASSERT_TRUE(grammars_.add({"d2", 1, "slow"}, 2));
  compiler_->begun.get_future().wait();
  ASSERT_TRUE(grammars_.add({"d3", 1, "a+"}, 2));
  grammars_.forget_all();
  ASSERT_TRUE(grammars_.add({"d4", 1, "a+"}, 3));
  compiler_->go_on.set_value();
  EXPECT_EQ(next().digest, "d4") << "nobody waits for the answers of an epoch that is over";
  EXPECT_FALSE(grammars_.find("d2"));
}

TEST(RankGrammars, SayThatThereAreNone) {
  std::promise<GrammarCompiled> answer;
  RankGrammars grammars(nullptr, [&](const GrammarCompiled& done, uint64_t) { answer.set_value(done); });
  ASSERT_TRUE(grammars.add({"d1", 1, "a+"}, 3));
  EXPECT_EQ(answer.get_future().get().error, "there are no grammars here");
}

}  // namespace
}  // namespace lorikeet::actors
