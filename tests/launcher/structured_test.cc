// Answers that are held to grammars by whole servers: with OpenAI's client, and the same tokens whatever happens.
// Needs a build with grammars: skips, saying so, where there are none.
#include <gtest/gtest.h>
#include <signal.h>

#include <chrono>
#include <cstdlib>
#include <thread>

#include "model/grammar/grammar.h"
#include "tests/launcher/served.h"

namespace lorikeet::tests {
namespace {

using nlohmann::json;

class StructuredTest : public ::testing::Test {
 protected:
  void SetUp() override {
    if (!model::has_grammars()) GTEST_SKIP() << "this build has no grammars";
  }

  // Twelve requests under four grammars, with and without adapters.
  static std::vector<comm::GenerateRequest> requests() {
    const char* outputs[] = {
        R"({"json": {"type": "object", "properties": {"a": {"type": "string", "maxLength": 30}, "b": {"type": "array",
            "items": {"enum": ["x", "y", 5, null]}, "maxItems": 6}}, "required": ["a", "b"], "additionalProperties": false}})",
        R"({"regex": "([a-z]{3,9} ){4,8}end"})",
        R"({"grammar": "root ::= \"(\" (\"whale\" | \"sea \" root | root)+ \")\""})",
        R"({"choice": ["a rather long choice to spell", "another choice that is long as well"]})"};
    std::vector<comm::GenerateRequest> list;
    for (int i = 0; i < 12; ++i) {
      comm::GenerateRequest request;
      request.prompt = i % 2 == 0 ? "The captain said" : "And it came to pass";
      if (i % 3 != 0) request.adapter = i % 3 == 1 ? "moby" : "kjv";
      request.max_tokens = 60;
      request.temperature = 1.5;
      request.top_k = 0;
      request.top_p = i % 5 == 0 ? 0.9 : 1;
      request.seed = static_cast<uint64_t>(i);
      request.structured_outputs = comm::JsonText{outputs[i % 4]};
      list.push_back(request);
    }
    return list;
  }

  static void expect_same(const std::vector<Answer>& got, const std::vector<Answer>& wanted) {
    ASSERT_EQ(got.size(), wanted.size());
    for (size_t i = 0; i < got.size(); ++i) {
      SCOPED_TRACE(i);
      ASSERT_TRUE(got[i].done) << (got[i].failure ? got[i].failure->message : "");
      EXPECT_EQ(got[i].token_ids, wanted[i].token_ids) << got[i].text << "|" << wanted[i].text;
    }
  }
};

TEST_F(StructuredTest, GivesOpenAisClientWhatItParses) {
  Served server(
      {"--tp", "2", "--chat-template", "qwen2.5", "--enable-auto-tool-choice", "--tool-call-parser", "hermes"});
  ASSERT_TRUE(server.ready()) << server.process().err();
  std::vector<std::string> arguments = {server.http_url()};
  if (std::getenv("LORIKEET_FULL") == nullptr) arguments.emplace_back("24");  // of the schemas
  const Finished client = run_python(source_path("tests/launcher/structured_client.py"), arguments);
  EXPECT_EQ(client.status, 0) << client.err;
  std::printf("%s", client.out.c_str());
}

TEST_F(StructuredTest, DrawsTheSameTokensOnAnyNumberOfRanksAloneAndInACrowd) {
  std::vector<Answer> alone;
  for (const char* ranks : {"1", "2", "4"}) {
    SCOPED_TRACE(ranks);
    Served server({"--tp", ranks});
    ASSERT_TRUE(server.ready()) << server.process().err();
    if (alone.empty()) {
      for (const auto& request : requests()) alone.push_back(server.ask(request));
    }
    auto crowd = requests();
    for (int i = 0; i < 12; ++i) {  // others beside them, some of them without a grammar
      crowd.push_back(greedy_request("It was a cold morning, and", i % 2 == 0 ? "shakespeare" : "moby", 40));
    }
    auto answers = server.ask(crowd);
    answers.resize(alone.size());
    expect_same(answers, alone);
  }
}

TEST_F(StructuredTest, DrawsTheSameTokensWhenSequencesArePreemptedAndRanksDie) {
  std::vector<Answer> alone;
  {
    Served roomy({"--tp", "2"});
    ASSERT_TRUE(roomy.ready()) << roomy.process().err();
    alone = roomy.ask(requests());
    const auto client = roomy.connect();
    auto sent = requests();
    for (size_t i = 0; i < sent.size(); ++i) {
      sent[i].id = std::to_string(i);
      ASSERT_TRUE(client->send(sent[i]));
    }
    // In the middle of the answers, by what the server says of itself.
    json status = roomy.status();
    const int before = status["engine"]["generated_tokens"].get<int>();
    for (int i = 0; i < 600 && status["engine"]["generated_tokens"].get<int>() < before + 60; ++i)
      status = roomy.status();
    kill(status["ranks"][1]["pid"].get<int>(), SIGKILL);
    expect_same(collect(*client, sent.size()), alone);
    EXPECT_GT(roomy.status()["engine"]["resumptions"].get<int>(), 0);
  }
  // 12 blocks of 16 positions for 12 sequences.
  Served cramped({"--tp", "2", "--max-model-len", "128", "--kv-cache-memory-bytes", "768K"});
  ASSERT_TRUE(cramped.ready()) << cramped.process().err();
  expect_same(cramped.ask(requests()), alone);
  EXPECT_GT(cramped.status()["engine"]["preemptions"].get<int>(), 0);
}

TEST_F(StructuredTest, AreAskedForOnTheCommandLine) {
  Served server({"--chat-template", "qwen2.5"});
  ASSERT_TRUE(server.ready()) << server.process().err();
  const auto submit = [&server](std::vector<std::string> more) {
    more.insert(more.begin(), {"submit", "--zmq", server.address()});
    return run_lorikeet(more);
  };
  const Finished choice = submit({"--structured-outputs", R"({"choice": ["only this"]})", "The captain said"});
  EXPECT_EQ(choice.status, 0) << choice.err;
  EXPECT_NE(choice.out.find("only this"), std::string::npos) << choice.out;
  write_file(server.scratch() / "tools.json", R"([{"type": "function", "function": {"name": "look_out"}}])");
  const Finished call = submit({"--chat", "--tools", (server.scratch() / "tools.json").string(), "--tool-choice",
                                "required", "--max-tokens", "200", "--temperature", "0", "What is there?"});
  EXPECT_EQ(call.status, 0) << call.err;
  EXPECT_NE(call.out.find("look_out {"), std::string::npos) << call.out;
  const Finished wrong = submit({"--structured-outputs", "no JSON", "x"});
  EXPECT_EQ(wrong.status, 2);
  EXPECT_NE(wrong.err.find("give a JSON object"), std::string::npos) << wrong.err;
}

TEST_F(StructuredTest, ClosesReasoningWithinItsBudget) {
  Served server({"--chat-template", "qwen3", "--reasoning-parser", "deepseek_r1"});
  ASSERT_TRUE(server.ready()) << server.process().err();
  comm::GenerateRequest request;
  request.messages.emplace().push_back({"user", "Why?"});
  request.max_tokens = 200;
  request.seed = 1;
  request.temperature = 1.2;
  request.thinking_budget = 12;
  request.structured_outputs = comm::JsonText{R"({"choice": ["yes", "no"]})"};
  const Answer answer = server.ask(request);
  ASSERT_TRUE(answer.done) << (answer.failure ? answer.failure->message : "");
  EXPECT_TRUE(answer.text == "yes" || answer.text == "no") << answer.text;
  EXPECT_GE(answer.done->usage.reasoning_tokens, 12);
  EXPECT_LE(answer.done->usage.reasoning_tokens, 12 + 8) << "and the closing tag";
  EXPECT_EQ(answer.done->finish_reason, "stop");
}

}  // namespace
}  // namespace lorikeet::tests
