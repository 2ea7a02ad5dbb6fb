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

// Answers every request at once: those for "bad" with a refusal.
class Answering : public comm::ServerClient {
 public:
  struct Seen {
    std::mutex mutex;
    std::vector<std::string> names;
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
    auto answer = std::move(answers_.front());
    answers_.pop_front();
    return answer;
  }

 private:
  const std::shared_ptr<Seen> seen_;
  std::deque<comm::ServerMessage> answers_;
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
