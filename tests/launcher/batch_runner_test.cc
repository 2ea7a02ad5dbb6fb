#include "launcher/batch_runner.h"

#include <gtest/gtest.h>

#include <deque>
#include <nlohmann/json.hpp>
#include <sstream>

#include "tests/launcher/process.h"

namespace lorikeet::launcher {
namespace {

using tests::read_file;
using tests::ScratchDirectory;
using tests::write_file;

// A server that answers what a test tells it to.
class ScriptedClient : public comm::ZmqClient {
 public:
  std::function<void(const comm::GenerateRequest&)> on_request;
  std::deque<comm::ServerMessage> answers;
  std::vector<std::string> sent;

  Result<void> send(const comm::ClientMessage& message) override {
    const auto& request = std::get<comm::GenerateRequest>(message);
    sent.push_back(request.id);
    on_request(request);
    return {};
  }
  std::optional<comm::ServerMessage> receive(std::chrono::milliseconds) override {
    if (answers.empty()) return std::nullopt;
    auto message = std::move(answers.front());
    answers.pop_front();
    return message;
  }
};

class BatchRunnerTest : public testing::Test {
 protected:
  // The results of running `input`, one JSON value per line.
  std::vector<nlohmann::json> run(const std::string& input, size_t window = 8) {
    write_file(scratch_ / "in", input);
    auto reader = LineReader::open((scratch_ / "in").string()).value();
    auto writer = LineWriter::open((scratch_ / "out").string()).value();
    BatchRunner runner(client_, reader, writer, window);
    outcome_ = runner.run([] { return true; });
    EXPECT_TRUE(writer.close().has_value());
    std::istringstream lines(read_file(scratch_ / "out"));
    std::vector<nlohmann::json> results;
    for (std::string line; std::getline(lines, line);) results.push_back(nlohmann::json::parse(line));
    return results;
  }
  void finish(const std::string& id) {
    comm::Done done;
    done.id = id;
    done.finish_reason = "length";
    client_.answers.push_back(done);
  }

  ScratchDirectory scratch_;
  ScriptedClient client_;
  Result<BatchRunner::Summary> outcome_ = fail("not run");
};

TEST_F(BatchRunnerTest, WritesResultsInTheOrderOfTheInputWhateverTheOrderOfTheAnswers) {
  std::vector<std::string> waiting;
  client_.on_request = [&](const comm::GenerateRequest& request) {
    waiting.push_back(request.id);
    if (waiting.size() == 3) {
      for (auto it = waiting.rbegin(); it != waiting.rend(); ++it) finish(*it);
    }
  };
  const auto results = run(R"({"id": "a", "prompt": "x"})"
                           "\n"
                           R"({"id": "b", "prompt": "x"})"
                           "\n"
                           R"({"id": "c", "prompt": "x"})"
                           "\n");
  ASSERT_EQ(results.size(), 3u);
  EXPECT_EQ(results[0]["id"], "a");
  EXPECT_EQ(results[1]["id"], "b");
  EXPECT_EQ(results[2]["id"], "c");
}

TEST_F(BatchRunnerTest, JoinsThePiecesOfAnAnswer) {
  client_.on_request = [&](const comm::GenerateRequest& request) {
    client_.answers.push_back(comm::Delta{request.id, "Call ", {1}, {{{1, -0.5F}, {2, -1.0F}}}});
    client_.answers.push_back(comm::Delta{request.id, "me", {2}, {{{2, -0.25F}}}});
    finish(request.id);
  };
  const auto results = run(R"({"id": "5", "prompt": "x", "logprobs": 2})"
                           "\n");
  ASSERT_EQ(results.size(), 1u);
  EXPECT_EQ(results[0]["id"], "5");
  EXPECT_EQ(results[0]["text"], "Call me");
  EXPECT_EQ(results[0]["token_ids"], (std::vector<int>{1, 2}));
  EXPECT_EQ(results[0]["logprobs"], nlohmann::json::parse("[[[1,-0.5],[2,-1.0]],[[2,-0.25]]]"));
  EXPECT_TRUE(results[0]["error"].is_null());
}

TEST_F(BatchRunnerTest, NamesTheLineThatIsNotJson) {
  const auto results = run("\n{\n");
  ASSERT_EQ(results.size(), 1u);
  EXPECT_TRUE(results[0]["id"].is_null());
  EXPECT_EQ(results[0]["line"], 2);
  EXPECT_EQ(results[0]["error"]["code"], "invalid_request");
}

TEST_F(BatchRunnerTest, SendsARequestAgainAfterALostServerAndDropsItsFirstPieces) {
  client_.on_request = [&](const comm::GenerateRequest& request) {
    client_.answers.push_back(comm::Delta{request.id, "half", {1}, {}});
    if (client_.sent.size() == 1) {
      client_.answers.push_back(comm::Failure{"", "server_lost", "gone"});
    } else {
      finish(request.id);
    }
  };
  const auto results = run(R"({"id": "a", "prompt": "x"})"
                           "\n");
  ASSERT_EQ(results.size(), 1u);
  EXPECT_EQ(client_.sent.size(), 2u);
  EXPECT_EQ(results[0]["text"], "half");
}

TEST_F(BatchRunnerTest, FailsARequestThatKeepsLosingItsServer) {
  client_.on_request = [&](const comm::GenerateRequest&) {
    client_.answers.push_back(comm::Failure{"", "server_lost", "gone"});
  };
  const auto results = run(R"({"id": "a", "prompt": "x"})"
                           "\n");
  ASSERT_EQ(results.size(), 1u);
  EXPECT_EQ(client_.sent.size(), static_cast<size_t>(BatchRunner::kMaxAttempts));
  EXPECT_EQ(results[0]["error"]["code"], "server_lost");
}

TEST_F(BatchRunnerTest, GivesUpWhenTheServerHasStoppedForGood) {
  client_.on_request = [](const comm::GenerateRequest&) {};
  run(R"({"id": "a", "prompt": "x"})"
      "\n");
  ASSERT_FALSE(outcome_.has_value());
  EXPECT_EQ(outcome_.error().message, "the server has stopped with 1 requests unanswered");
}

TEST_F(BatchRunnerTest, IgnoresAnswersToRequestsThatItNeverMade) {
  client_.on_request = [&](const comm::GenerateRequest& request) {
    client_.answers.push_back(comm::Delta{"99", "x", {1}, {}});
    client_.answers.push_back(comm::Delta{"not a number", "x", {1}, {}});
    finish(request.id);
  };
  EXPECT_EQ(run(R"({"id": "a", "prompt": "x"})"
                "\n")
                .size(),
            1u);
}

}  // namespace
}  // namespace lorikeet::launcher
