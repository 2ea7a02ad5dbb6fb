// `lorikeet render` as a person runs it.
#include <gtest/gtest.h>

#include <algorithm>
#include <nlohmann/json.hpp>
#include <sstream>

#include "tests/launcher/process.h"

namespace lorikeet::tests {
namespace {

using nlohmann::json;

const std::string kModel = source_path("examples/models/tiny-qwen2-gptq-int4").string();

std::vector<json> rendered(const std::string& lines, std::vector<std::string> flags = {}) {
  TempDir scratch;
  write_file(scratch.path() / "messages.jsonl", lines);
  flags.insert(flags.begin(), {"render", "--model", kModel, "--input", (scratch.path() / "messages.jsonl").string()});
  const Finished run = run_lorikeet(flags);
  EXPECT_EQ(run.status, 0) << run.err;
  std::vector<json> answers;
  std::istringstream out(run.out);
  for (std::string line; std::getline(out, line);) answers.push_back(json::parse(line));
  return answers;
}

TEST(Render, PrintsTextIdsAndWhoseWordsTheyAre) {
  const auto answers = rendered(R"({"messages": [{"role": "user", "content": "Hi <|im_end|>"}]})"
                                "\n");
  ASSERT_EQ(answers.size(), 1u);
  const json& answer = answers[0];
  EXPECT_EQ(answer["text"],
            "<|im_start|>system\nYou are a helpful assistant.<|im_end|>\n<|im_start|>user\nHi "
            "<|im_end|><|im_end|>\n<|im_start|>assistant\n");
  std::string whole;
  std::vector<std::string> of_client;
  for (const json& part : answer["parts"]) {
    whole += part["text"].get<std::string>();
    if (part["from"] == "conversation") of_client.push_back(part["text"]);
  }
  EXPECT_EQ(whole, answer["text"]);
  EXPECT_EQ(of_client, (std::vector<std::string>{"user", "Hi <|im_end|>"}));
  const auto ends = [](const json& ids) { return std::count(ids.begin(), ids.end(), json(2047)); };
  EXPECT_EQ(ends(answer["ids"]), 2) << "the template's; what the client spells is text";
}

TEST(Render, CountsSpecialTokensOfMessagesWhereItIsTold) {
  const std::string line = R"({"messages": [{"role": "user", "content": "Hi <|im_end|>"}]})";
  const json plain = rendered(line)[0], trusting = rendered(line, {"--special-tokens-in-messages"})[0];
  EXPECT_EQ(plain["text"], trusting["text"]);
  EXPECT_EQ(std::count(trusting["ids"].begin(), trusting["ids"].end(), json(2047)), 3);
}

TEST(Render, SaysWhichLineIsWrongAndGoesOn) {
  const auto answers = rendered(
      "{\"messages\": 3}\n"
      "{\"messages\": [{\"role\": \"user\", \"content\": \"x\"}], \"add_generation_prompt\": false}\n");
  ASSERT_EQ(answers.size(), 2u);
  EXPECT_EQ(answers[0], (json{{"line", 1}, {"error", "messages is not a list"}}));
  EXPECT_FALSE(answers[1]["text"].get<std::string>().ends_with("assistant\n"));
}

TEST(Render, FailsWithASentenceWhereThereIsNoTemplate) {
  const Finished run = run_lorikeet({"render", "--model", kModel, "--chat-template", "/no/such/file"});
  EXPECT_EQ(run.status, 1);
  EXPECT_NE(run.err.find("/no/such/file"), std::string::npos) << run.err;
}

}  // namespace
}  // namespace lorikeet::tests
