#include "launcher/batch_runner.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <deque>
#include <filesystem>
#include <nlohmann/json.hpp>
#include <set>
#include <sstream>

#include "tests/launcher/process.h"

namespace lorikeet::launcher {
namespace {

using tests::read_file;
using tests::TempDir;
using tests::write_file;

// A server that answers what a test tells it to.
class ScriptedClient : public comm::ZmqClient {
 public:
  std::function<void(const comm::GenerateRequest&)> on_request;
  std::deque<comm::ServerMessage> answers;
  std::vector<std::string> sent, cancelled;

  comm::Handshake handshake() const override { return comm::Handshake::none; }
  bool await_greeting(std::chrono::milliseconds) override { return true; }
  Result<void> send(const comm::ClientMessage& message) override {
    if (const auto* cancel = std::get_if<comm::Cancel>(&message)) {
      cancelled.push_back(cancel->id);
      return {};
    }
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
    auto writer = LineFileWriter::open((scratch_ / "out").string()).value();
    BatchRunner runner(client_, reader, writer, window, {}, model_);
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

  TempDir scratch_;
  ScriptedClient client_;
  BatchModel model_;
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

TEST_F(BatchRunnerTest, GathersTheAnswersToALineThatAsksForSeveral) {
  std::vector<comm::GenerateRequest> asked;
  client_.on_request = [&](const comm::GenerateRequest& request) {
    asked.push_back(request);
    client_.answers.push_back(comm::Delta{request.id, "of " + std::to_string(request.seed.value_or(0)), {1}, {}});
    if (asked.size() < 3) return;
    for (size_t i = 3; i-- > 0;) finish(asked[i].id);  // the last one first
  };
  const auto results = run(R"({"id": 5, "prompt": "x", "n": 3, "seed": 7})"
                           "\n");
  ASSERT_EQ(asked.size(), 3u);
  EXPECT_FALSE(asked[0].n);
  ASSERT_EQ(results.size(), 1u);
  EXPECT_EQ(results[0]["id"], 5);
  EXPECT_TRUE(results[0]["error"].is_null());
  ASSERT_EQ(results[0]["choices"].size(), 3u);
  for (size_t i = 0; i < 3; ++i) {
    EXPECT_EQ(results[0]["choices"][i]["index"], i);
    EXPECT_EQ(results[0]["choices"][i]["text"], "of " + std::to_string(7 + i));
    EXPECT_TRUE(results[0]["choices"][i].contains("finish_reason"));
  }
  EXPECT_FALSE(results[0].contains("text"));
}

TEST_F(BatchRunnerTest, LeavesAWrongNumberOfAnswersToTheServer) {
  client_.on_request = [&](const comm::GenerateRequest& request) {
    EXPECT_EQ(request.n, 500);
    client_.answers.push_back(comm::Failure{request.id, "invalid_request", "n is 500, not in 1 .. 128"});
  };
  const auto results = run(R"({"id": "a", "prompt": "x", "n": 500})"
                           "\n");
  ASSERT_EQ(results.size(), 1u);
  EXPECT_EQ(results[0]["error"]["code"], "invalid_request");
}

TEST_F(BatchRunnerTest, AnswersOpenAisLinesInTheirForm) {
  model_.names = {"tiny", {}};
  model_.token_bytes = [](int32_t) { return std::string_view("t"); };
  model_.decode = [](std::span<const int32_t> ids) { return std::to_string(ids.size()) + " tokens"; };
  model_.now = [] { return int64_t{1700000000}; };
  std::vector<comm::GenerateRequest> asked;
  client_.on_request = [&](const comm::GenerateRequest& request) {
    asked.push_back(request);
    if (request.adapter == "none") {
      client_.answers.push_back(comm::Failure{request.id, "unknown_adapter", "there is no adapter"});
      return;
    }
    client_.answers.push_back(comm::Delta{request.id, " of " + request.id, {1}, {}});
    comm::Done done;
    done.id = request.id;
    done.finish_reason = "length";
    done.usage = {3, 1, 4, 0};
    done.prompt_token_ids = {7, 8, 9};
    client_.answers.push_back(done);
  };
  const auto results =
      run(R"({"custom_id": "a", "method": "POST", "url": "/v1/completions", )"
          R"("body": {"model": "tiny:moby", "prompt": [7, 8, 9], "n": 2, "echo": true, "max_tokens": 1000.0}})"
          "\n"
          R"({"custom_id": "b", "url": "/v1/chat/completions", )"
          R"("body": {"model": "none", "messages": [{"role": "user", "content": "x"}], "stream": true}})"
          "\n"
          R"({"custom_id": "c", "url": "/v1/completions", "body": {"prompt": "x", "temperature": "hot"}})"
          "\n"
          R"({"custom_id": "d", "url": "/v1/embeddings", "body": {}})"
          "\n"
          R"({"custom_id": 5, "url": "/v1/completions", "body": {"prompt": "x"}})"
          "\n"
          R"({"id": "own", "prompt": "x"})"
          "\n");
  ASSERT_EQ(results.size(), 6u);
  ASSERT_EQ(asked.size(), 4u);
  EXPECT_EQ(asked[0].adapter, "moby");
  EXPECT_EQ(asked[0].max_tokens, 1000);
  EXPECT_EQ(results[0]["custom_id"], "a");
  EXPECT_EQ(results[0]["id"], "batch_req_0");
  EXPECT_TRUE(results[0]["error"].is_null());
  EXPECT_EQ(results[0]["response"]["status_code"], 200);
  const auto& body = results[0]["response"]["body"];
  EXPECT_EQ(body["object"], "text_completion");
  EXPECT_EQ(body["model"], "tiny:moby");
  ASSERT_EQ(body["choices"].size(), 2u);
  EXPECT_EQ(body["choices"][1]["text"], "3 tokens of 0/1/1");
  EXPECT_EQ(body["usage"]["completion_tokens"], 2);
  EXPECT_EQ(results[1]["response"]["status_code"], 404);
  EXPECT_EQ(results[1]["response"]["body"]["error"]["code"], "model_not_found");
  EXPECT_EQ(results[2]["response"]["status_code"], 400);
  EXPECT_EQ(results[2]["response"]["body"]["error"]["param"], "temperature");
  EXPECT_EQ(results[3]["response"]["body"]["error"]["param"], "url");
  EXPECT_EQ(results[4]["line"], 5);
  EXPECT_EQ(results[5]["id"], "own");
  EXPECT_EQ(outcome_->failed, 4);
}

// Of several choices one is lost with the ranks: all are asked for anew, and what the others still say is not heard.
TEST_F(BatchRunnerTest, SendsAllChoicesOfALineAgain) {
  model_.now = [] { return int64_t{0}; };
  client_.on_request = [&](const comm::GenerateRequest& request) {
    if (request.id == "0/1/1") {
      client_.answers.push_back(comm::Failure{"0/0/1", "rank_lost", "rank 1 died"});
      client_.answers.push_back(comm::Delta{"0/1/1", "late", {1}, {}});
      finish("0/1/1");
    } else if (request.id.back() == '2') {
      client_.answers.push_back(comm::Delta{request.id, "anew", {1}, {}});
      finish(request.id);
    }
  };
  const auto results = run(R"({"custom_id": "a", "url": "/v1/completions", "body": {"prompt": "x", "n": 2}})"
                           "\n");
  ASSERT_EQ(results.size(), 1u);
  EXPECT_EQ(client_.cancelled, std::vector<std::string>{"0/1/1"});
  for (const auto& choice : results[0]["response"]["body"]["choices"]) EXPECT_EQ(choice["text"], "anew");
}

TEST(BatchLine, TellsFinalResultsOfBothFormsApart) {
  EXPECT_EQ(final_result(R"({"id": "a", "error": null})")->key, "\"a\"");
  EXPECT_EQ(final_result(R"({"id": 7, "error": null})")->key, "7");
  EXPECT_EQ(final_result(R"({"id": null, "line": 3, "error": {"code": "invalid_request"}})")->line, 3);
  EXPECT_FALSE(final_result(R"({"id": "a", "error": {"code": "rank_lost"}})"));
  EXPECT_FALSE(final_result(R"({"id": "a", "err)"));
  EXPECT_FALSE(final_result("[]"));
  const auto of_openai = [](const char* body) {
    return final_result(std::string(R"({"id": "batch_req_0", "custom_id": "a", "error": null, "response": )") + body +
                        "}");
  };
  EXPECT_EQ(of_openai(R"({"status_code": 200, "body": {"choices": []}})")->key, "custom_id a");
  EXPECT_TRUE(of_openai(R"({"status_code": 400, "body": {"error": {"code": "invalid_request"}}})"));
  EXPECT_FALSE(of_openai(R"({"status_code": 503, "body": {"error": {"code": "rank_lost"}}})"));
  EXPECT_FALSE(of_openai("null"));
  EXPECT_FALSE(of_openai("{}"));
}

TEST(BatchLine, TakesWhatPeopleWriteFromHabitWithOpenAisClients) {
  BatchModel model;
  model.names = {"base", {}};
  const auto adapter = [&](const char* more) -> std::string {
    const auto line =
        BatchLine::parse(std::string(R"({"id": 5, "prompt": "It", "max_tokens": 8.0)") + more + "}", 0, model);
    if (!line) return line.error().message;
    EXPECT_EQ((*line)->key(), "5");
    const auto request = (*line)->requests().front();
    EXPECT_EQ(request.max_tokens, 8);
    return request.adapter.value_or("none");
  };
  EXPECT_EQ(adapter(R"(, "model": "kjv", "stream": true)"), "kjv");
  EXPECT_EQ(adapter(R"(, "model": "base", "stream": false)"), "none");
  EXPECT_EQ(adapter(R"(, "model": "base:kjv")"), "kjv");
  EXPECT_EQ(adapter(R"(, "model": "base", "adapter": "kjv")"), "kjv");
  EXPECT_THAT(adapter(R"(, "model": "moby", "adapter": "kjv")"), ::testing::HasSubstr("unknown field \"model\""));
  EXPECT_THAT(adapter(R"(, "stream": 1)"), ::testing::HasSubstr("unknown field \"stream\""));
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

TEST_F(BatchRunnerTest, SendsTheRequestsOfALostGroupAgainAndTheLastTimeAlone) {
  // "poison" ends the group each time; the others are with it.
  std::vector<std::string> with_server;
  client_.on_request = [&](const comm::GenerateRequest& request) {
    with_server.push_back(request.id);
    const bool all = with_server.size() == 3, alone = client_.sent.size() > 6;
    if (alone && request.id != "1") return finish(request.id), with_server.clear();
    if (!all && !alone) return;
    for (const std::string& id : std::exchange(with_server, {})) {
      client_.answers.push_back(comm::Failure{id, "rank_lost", "rank 0 died"});
    }
  };
  const auto results =
      run("{\"id\": \"a\", \"prompt\": \"x\"}\n{\"id\": \"poison\", \"prompt\": \"x\"}\n"
          "{\"id\": \"b\", \"prompt\": \"x\"}\n");
  ASSERT_EQ(results.size(), 3u);
  EXPECT_TRUE(results[0]["error"].is_null());
  EXPECT_EQ(results[1]["error"]["code"], "rank_lost");
  EXPECT_TRUE(results[2]["error"].is_null());
  EXPECT_EQ(client_.sent.size(), 9u);
}

TEST_F(BatchRunnerTest, WritesNothingForWhatAServerThatGoesAwayLeavesUnanswered) {
  client_.on_request = [&](const comm::GenerateRequest& request) {
    if (request.id == "1") finish(request.id);
    if (request.id == "2") client_.answers.push_back(comm::Failure{"0", "shutting_down", "the server is going away"});
  };
  const auto results =
      run("{\"id\": \"a\", \"prompt\": \"x\"}\n{\"id\": \"b\", \"prompt\": \"x\"}\n"
          "{\"id\": \"c\", \"prompt\": \"x\"}\n");
  EXPECT_FALSE(outcome_);
  ASSERT_EQ(results.size(), 1u) << "the answer that had come, though the line before it has none";
  EXPECT_EQ(results[0]["id"], "b");
}

TEST_F(BatchRunnerTest, DoesTheRestOfAnOutputThatWasCutOffAnywhere) {
  std::string input;
  for (int i = 0; i < 6; ++i)
    input += fmt::format("{{\"id\": {}, \"prompt\": \"x\"}}\n",
                         i % 2 == 0 ? std::to_string(i) : fmt::format("\"{}\"", i - 1));
  input += "not JSON\n";
  client_.on_request = [&](const comm::GenerateRequest& request) { finish(request.id); };
  run(input);
  const std::string whole = read_file(scratch_ / "out");
  const auto sorted = [](const std::string& text) {
    std::istringstream lines(text);
    std::multiset<std::string> set;
    for (std::string line; std::getline(lines, line);) set.insert(line);
    return set;
  };
  for (size_t cut = 0; cut <= whole.size(); cut += 7) {
    write_file(scratch_ / "out", whole.substr(0, cut));
    auto answered = AnsweredLines::take_over((scratch_ / "out").string());
    ASSERT_TRUE(answered) << answered.error().message;
    auto reader = LineReader::open((scratch_ / "in").string()).value();
    auto writer = LineFileWriter::open((scratch_ / "out").string(), true).value();
    EXPECT_TRUE(BatchRunner(client_, reader, writer, 2, *std::move(answered)).run([] { return true; }));
    EXPECT_TRUE(writer.close());
    EXPECT_EQ(sorted(read_file(scratch_ / "out")), sorted(whole)) << cut;
  }
}

TEST_F(BatchRunnerTest, SendsAgainOnResumeWhatOnlyTheServerFailed) {
  write_file(scratch_ / "out", R"({"id": "a", "error": {"code": "rank_lost", "message": ""}})"
                               "\n"
                               R"({"id": "b", "error": {"code": "too_long", "message": ""}})"
                               "\n[1]\n");
  auto answered = AnsweredLines::take_over((scratch_ / "out").string());
  ASSERT_TRUE(answered);
  EXPECT_EQ(answered->size(), 1);
  EXPECT_FALSE(answered->take(BatchLine::parse(R"({"id": "a"})", 1, {}), 1));
  EXPECT_TRUE(answered->take(BatchLine::parse(R"({"id": "b"})", 1, {}), 2));
  EXPECT_FALSE(answered->take(BatchLine::parse(R"({"id": "b"})", 1, {}), 3)) << "one answer, one line";
  EXPECT_EQ(AnsweredLines::take_over((scratch_ / "absent").string())->size(), 0);
  EXPECT_FALSE(AnsweredLines::take_over(scratch_.path().string()));
}

TEST(CheckDistinct, KnowsAFileByEveryPath) {
  TempDir scratch;
  write_file(scratch / "in", "x\n");
  std::filesystem::create_symlink("in", scratch / "link");
  std::filesystem::create_hard_link(scratch / "in", scratch / "hard");
  std::filesystem::create_directory(scratch / "dir");
  for (const char* name : {"in", "link", "hard", "dir/../in"}) {
    EXPECT_FALSE(check_distinct((scratch / "in").string(), (scratch / name).string())) << name;
    EXPECT_FALSE(check_distinct((scratch / name).string(), (scratch / "in").string())) << name;
  }
  write_file(scratch / "other", "x\n");
  for (const char* name : {"other", "absent", "dir"}) {
    EXPECT_TRUE(check_distinct((scratch / "in").string(), (scratch / name).string())) << name;
  }
  EXPECT_TRUE(check_distinct("/dev/null", "/dev/null"));
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
