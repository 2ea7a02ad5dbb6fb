#include "launcher/status_query.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <optional>
#include <string>
#include <utility>

namespace lorikeet::launcher {
namespace {

using ::testing::HasSubstr;

// A server that answers whatever it is asked with one message.
class OneAnswer final : public comm::ZmqClient {
 public:
  explicit OneAnswer(std::optional<comm::ServerMessage> answer) : answer_(std::move(answer)) {}
  comm::Handshake handshake() const override { return comm::Handshake::none; }
  bool await_greeting(std::chrono::milliseconds) override { return true; }
  Result<void> send(const comm::ClientMessage& message) override {
    asked = std::holds_alternative<comm::StatusRequest>(message);
    return {};
  }
  std::optional<comm::ServerMessage> receive(std::chrono::milliseconds) override {
    return std::exchange(answer_, std::nullopt);
  }

  bool asked = false;

 private:
  std::optional<comm::ServerMessage> answer_;
};

TEST(StatusQuery, AsksForTheStatus) {
  OneAnswer client(comm::StatusReply{"status", "{}"});
  const auto answer = ask_status(client, std::chrono::seconds(1));
  ASSERT_TRUE(answer.has_value());
  EXPECT_TRUE(client.asked);
  EXPECT_EQ(answer->json, "{}");
}

TEST(StatusQuery, TellsWhyTheServerRefuses) {
  OneAnswer client(comm::Failure{"status", "internal", "the server's state is not known"});
  const auto answer = ask_status(client, std::chrono::seconds(1));
  ASSERT_FALSE(answer);
  EXPECT_EQ(answer.error().message, "the server's state is not known");
}

TEST(StatusQuery, GivesUpWithoutAnAnswer) {
  OneAnswer client(std::nullopt);
  const auto answer = ask_status(client, std::chrono::seconds(0));
  ASSERT_FALSE(answer);
  EXPECT_THAT(answer.error().message, HasSubstr("no status within 0 s"));
}

TEST(StatusQuery, ReadsWhatAnotherVersionSays) {
  const auto status = read_status(R"({"model": "m", "kv_cache_tokens": 12, "news": 1})");
  ASSERT_TRUE(status) << status.error().message;
  EXPECT_EQ(status->model, "m");
  EXPECT_EQ(status->serving.kv_cache_tokens, 12);
}

TEST(StatusQuery, RefusesWhatIsNoStatus) {
  EXPECT_THAT(read_status("[1]").error().message, HasSubstr("the server's status: "));
  EXPECT_THAT(read_status(R"({"epoch": "two"})").error().message, HasSubstr("epoch must be an integer"));
}

}  // namespace
}  // namespace lorikeet::launcher
