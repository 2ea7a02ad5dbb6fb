#include "launcher/adapter_warmer.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <chrono>
#include <deque>
#include <future>
#include <memory>
#include <mutex>
#include <optional>
#include <string>
#include <utility>
#include <variant>
#include <vector>

namespace lorikeet::launcher {
namespace {

using testing::ElementsAre;

constexpr double kPerSecond = 50;
constexpr std::chrono::milliseconds kPeriod{20};

// Answers every request at once, those for "bad" with a refusal, but for "slow", which takes some periods.
class Answering : public comm::ServerClient {
 public:
  struct Seen {
    std::mutex mutex;
    std::vector<std::string> names;
    std::vector<std::chrono::steady_clock::time_point> asked, answered;
    size_t awaited = 0;
    std::promise<void> enough;
  };
  explicit Answering(std::shared_ptr<Seen> seen) : seen_(std::move(seen)) {}

  bool await_greeting(std::chrono::milliseconds) override { return true; }
  Result<void> send(const comm::ClientMessage& message) override {
    const auto& request = std::get<comm::AdapterRequest>(message);
    EXPECT_EQ(request.action, "warm");
    const std::lock_guard lock(seen_->mutex);
    if (seen_->names.size() < seen_->awaited) {
      seen_->names.push_back(*request.name);
      seen_->asked.push_back(std::chrono::steady_clock::now());
      if (*request.name == "slow") slow_until_ = seen_->asked.back() + 5 * kPeriod;
      if (seen_->names.size() == seen_->awaited) seen_->enough.set_value();
    }
    if (*request.name == "bad") {
      answers_.push_back(comm::Failure{request.id, "not_found", "there is no adapter bad"});
    } else {
      answers_.push_back(comm::AdapterReply{request.id, "it is there", std::nullopt});
    }
    return {};
  }
  std::optional<comm::ServerMessage> receive(std::chrono::milliseconds) override {
    const auto now = std::chrono::steady_clock::now();
    if (now < slow_until_) return std::nullopt;
    auto answer = std::move(answers_.front());
    answers_.pop_front();
    const std::lock_guard lock(seen_->mutex);
    seen_->answered.push_back(now);
    return answer;
  }

 private:
  const std::shared_ptr<Seen> seen_;
  std::deque<comm::ServerMessage> answers_;
  std::chrono::steady_clock::time_point slow_until_;
};

TEST(AdapterWarmer, WarmsOneAfterTheOtherAndAgainUntilItIsStopped) {
  const auto seen = std::make_shared<Answering::Seen>();
  seen->awaited = 5;
  AdapterWarmer warmer(std::make_unique<Answering>(seen), {"a", "b"});
  seen->enough.get_future().wait();
  EXPECT_TRUE(warmer.stop());
  EXPECT_THAT(seen->names, ElementsAre("a", "b", "a", "b", "a"));
}

TEST(AdapterWarmer, WaitsBetweenOnesWhereSoManyAreWantedAndNotOnceItIsStopped) {
  constexpr double kOneInAnHour = 1.0 / 3600;
  const auto seen = std::make_shared<Answering::Seen>();
  seen->awaited = 1;
  AdapterWarmer warmer(std::make_unique<Answering>(seen), {"a", "b"}, kOneInAnHour);
  seen->enough.get_future().wait();
  {
    const std::lock_guard lock(seen->mutex);
    seen->awaited = 3;  // others would be seen now
  }
  EXPECT_TRUE(warmer.stop());
  EXPECT_THAT(seen->names, ElementsAre("a"));
}

TEST(AdapterWarmer, WaitsAnHourAtTheMost) {
  using std::chrono::hours;
  EXPECT_EQ(AdapterWarmer::period_of(0), hours(0));
  EXPECT_EQ(AdapterWarmer::period_of(1e6), std::chrono::microseconds(1));
  EXPECT_EQ(AdapterWarmer::period_of(kPerSecond), kPeriod);
  for (const double rare : {1e-4, 1e-300, 1e-320}) EXPECT_EQ(AdapterWarmer::period_of(rare), hours(1)) << rare;
}

TEST(AdapterWarmer, MakesUpForNothingAfterASlowOne) {
  const auto seen = std::make_shared<Answering::Seen>();
  seen->awaited = 4;
  AdapterWarmer warmer(std::make_unique<Answering>(seen), {"slow", "a", "b", "c"}, kPerSecond);
  seen->enough.get_future().wait();
  EXPECT_TRUE(warmer.stop());
  ASSERT_THAT(seen->names, ElementsAre("slow", "a", "b", "c"));
  // Each begins after the answer to the one before it, and a period before the one behind it.
  for (size_t i = 1; i + 1 < seen->asked.size(); ++i)
    EXPECT_GE(seen->asked[i + 1] - seen->answered[i - 1], kPeriod) << i;
}

TEST(AdapterWarmer, SaysWhichAdapterIsRefusedAndGoesNoFurther) {
  const auto seen = std::make_shared<Answering::Seen>();
  seen->awaited = 2;
  AdapterWarmer warmer(std::make_unique<Answering>(seen), {"a", "bad", "c"});
  seen->enough.get_future().wait();
  const auto ended = warmer.stop();
  ASSERT_FALSE(ended);
  EXPECT_EQ(ended.error().message, "adapter bad: there is no adapter bad");
  EXPECT_THAT(seen->names, ElementsAre("a", "bad"));
}

}  // namespace
}  // namespace lorikeet::launcher
