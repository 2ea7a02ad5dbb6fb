#include "launcher/load_client.h"

#include <gtest/gtest.h>

#include <deque>
#include <set>

namespace lorikeet::launcher {
namespace {

// A server that answers every request with its tokens, one delta each, when it is asked for the next message.
class ScriptedClient : public comm::ZmqClient {
 public:
  std::vector<comm::GenerateRequest> sent;
  std::deque<comm::ServerMessage> answers;
  size_t running = 0, most_running = 0;
  std::string refuse_id;  // answered with a failure
  bool silent = false;

  comm::Handshake handshake() const override { return comm::Handshake::none; }
  bool await_greeting(std::chrono::milliseconds) override { return true; }
  Result<void> send(const comm::ClientMessage& message) override {
    const auto& request = std::get<comm::GenerateRequest>(message);
    sent.push_back(request);
    most_running = std::max(most_running, ++running);
    if (silent) return {};
    if (request.id == refuse_id) {
      answers.push_back(comm::Failure{request.id, "too_long", "it is too long"});
      return {};
    }
    for (int32_t i = 0; i < *request.max_tokens; ++i) answers.push_back(comm::Delta{request.id, "", {i}, {}});
    comm::Done done;
    done.id = request.id;
    done.usage.prompt_tokens = static_cast<int32_t>(request.prompt_token_ids->size());
    answers.push_back(done);
    return {};
  }
  std::optional<comm::ServerMessage> receive(std::chrono::milliseconds) override {
    if (answers.empty()) return std::nullopt;
    auto message = std::move(answers.front());
    answers.pop_front();
    if (!std::holds_alternative<comm::Delta>(message)) --running;
    return message;
  }
};

const auto never = [] { return false; };

TEST(LoadClient, CountsTheTokensOfEveryRequest) {
  ScriptedClient client;
  const auto load = run_load(client, random_requests(5, 7, 3, 100, 1), {}, never);
  ASSERT_TRUE(load.has_value());
  EXPECT_EQ(client.sent.size(), 5u);
  EXPECT_EQ(load->tokens(), 15);
  EXPECT_EQ(load->prompt_tokens(), 35);
  EXPECT_EQ(load->first_error(), nullptr);
  for (const RequestTimes& times : load->requests) {
    EXPECT_EQ(times.tokens, 3);
    EXPECT_LE(times.sent, times.first_token);
    EXPECT_LE(times.first_token, times.last_token);
    EXPECT_LE(times.last_token, times.done);
    EXPECT_LE(times.done, load->seconds);
    EXPECT_DOUBLE_EQ(times.seconds_per_token(), (times.last_token - times.first_token) / 2);
  }
}

TEST(LoadClient, KeepsNoMoreRequestsWithTheServerThanAllowed) {
  ScriptedClient client;
  LoadOptions options;
  options.max_concurrency = 3;
  ASSERT_TRUE(run_load(client, random_requests(20, 2, 2, 100, 1), options, never).has_value());
  EXPECT_EQ(client.sent.size(), 20u);
  EXPECT_EQ(client.most_running, 3u);
}

TEST(LoadClient, SendsAtTheGivenRate) {
  ScriptedClient client;
  LoadOptions options;
  options.request_rate = 2000;
  const auto load = run_load(client, random_requests(40, 2, 1, 100, 1), options, never);
  ASSERT_TRUE(load.has_value());
  // The same seed gives the same distances, so the last one is known to come this late.
  EXPECT_GT(load->requests.back().sent, 0.005);
  for (size_t i = 1; i < load->requests.size(); ++i) EXPECT_GE(load->requests[i].sent, load->requests[i - 1].sent);
}

TEST(LoadClient, GoesOnPastARequestThatFails) {
  ScriptedClient client;
  client.refuse_id = "1";
  const auto load = run_load(client, random_requests(3, 2, 2, 100, 1), {}, never);
  ASSERT_TRUE(load.has_value());
  ASSERT_NE(load->first_error(), nullptr);
  EXPECT_EQ(*load->first_error(), "it is too long");
  EXPECT_EQ(load->tokens(), 4);
}

TEST(LoadClient, FailsWhenTheServerIsLostOrHasStopped) {
  ScriptedClient lost;
  lost.silent = true;
  lost.answers.push_back(comm::Failure{"", "server_lost", "the server is silent"});
  const auto first = run_load(lost, random_requests(2, 2, 2, 100, 1), {}, never);
  ASSERT_FALSE(first.has_value());
  EXPECT_EQ(first.error().message, "the server is silent");

  ScriptedClient stopped;
  stopped.silent = true;
  const auto second = run_load(stopped, random_requests(2, 2, 2, 100, 1), {}, [] { return true; });
  ASSERT_FALSE(second.has_value());
  EXPECT_EQ(second.error().message, "the server has stopped with 2 requests unanswered");
}

TEST(LoadClient, DrawsPromptsThatDifferAndStayInsideTheVocabulary) {
  std::set<std::vector<int32_t>> prompts;
  for (const comm::GenerateRequest& request : random_requests(50, 16, 4, 10, 3)) {
    prompts.insert(*request.prompt_token_ids);
    EXPECT_EQ(request.prompt_token_ids->size(), 16u);
    for (const int32_t id : *request.prompt_token_ids) EXPECT_TRUE(id >= 0 && id < 10) << id;
    EXPECT_EQ(request.max_tokens, 4);
    EXPECT_TRUE(request.ignore_eos);
  }
  EXPECT_EQ(prompts.size(), 50u);
}

TEST(LoadClient, TakesPercentilesByNearestRank) {
  EXPECT_EQ(percentile({}, 0.5), 0);
  EXPECT_EQ(percentile({3, 1, 2}, 0.5), 2);
  EXPECT_EQ(percentile({3, 1, 2}, 0.99), 3);
  EXPECT_EQ(percentile({1, 2, 3, 4}, 0.5), 2);
  EXPECT_EQ(percentile({7}, 0), 7);
}

}  // namespace
}  // namespace lorikeet::launcher
