// `lorikeet batch` against the committed reference outputs.
#include <gtest/gtest.h>

#include <algorithm>
#include <chrono>
#include <cmath>
#include <csignal>
#include <filesystem>
#include <set>
#include <sstream>
#include <thread>

#include "tests/launcher/golden.h"
#include "tests/launcher/served.h"
#include "tests/tolerance.h"

namespace lorikeet::tests {
namespace {

// Runs `lorikeet batch` over `requests`; the results, or what it said when it failed.
std::string run_batch(const std::string& requests, std::vector<std::string> flags) {
  TempDir scratch;
  write_file(scratch / "requests.jsonl", requests);
  flags.insert(flags.begin(), "batch");
  for (const char* name : {"--input", "--output"}) {
    flags.push_back(name);
    flags.push_back((scratch / (name[2] == 'i' ? "requests.jsonl" : "results.jsonl")).string());
  }
  const Finished run = run_lorikeet(flags);
  EXPECT_EQ(run.status, 0) << run.err;
  return read_file(scratch / "results.jsonl");
}

std::vector<std::string> example_flags_with(const std::vector<std::string>& more) {
  std::vector<std::string> flags = example_flags();
  flags.insert(flags.end(), more.begin(), more.end());
  return flags;
}

class BatchOverRanks : public testing::TestWithParam<int> {};

TEST_P(BatchOverRanks, AgreesWithTheReferenceInAllCases) {
  const auto golden = read_golden();
  const std::string results =
      run_batch(golden_requests(golden), example_flags_with({"--tp", std::to_string(GetParam())}));
  EXPECT_EQ(golden_differences(golden, results, kLogprobTolerance), "");
}

INSTANTIATE_TEST_SUITE_P(TensorParallelSizes, BatchOverRanks, testing::Values(1, 2, 4));

struct Format {
  const char* name;
  int ranks;
};

class BatchOverFormats : public testing::TestWithParam<Format> {};

TEST_P(BatchOverFormats, AgreesWithTheReferenceInAllCases) {
  const auto directory = source_path("tests/data/formats") / GetParam().name;
  const auto golden = nlohmann::json::parse(read_file(directory / "golden.json"));
  std::vector<std::string> flags = {
      "--model", directory.string(), "--device", "cpu", "--tp", std::to_string(GetParam().ranks)};
  flags.push_back("--lora-modules");
  for (const auto& adapter : std::filesystem::directory_iterator(directory / "adapters")) {
    flags.push_back(adapter.path().filename().string() + "=" + adapter.path().string());
  }
  const std::string results = run_batch(golden_requests(golden), flags);
  EXPECT_EQ(golden_differences(golden, results, kFormatLogprobTolerance), "");
}

INSTANTIATE_TEST_SUITE_P(Formats, BatchOverFormats,
                         testing::Values(Format{"qwen1.5-gptq-actorder", 1}, Format{"qwen1.5-gptq-actorder", 2},
                                         Format{"qwen2-fp16-tied", 1}, Format{"qwen2-fp16-tied", 2},
                                         Format{"qwen2.5-awq", 1}, Format{"qwen2.5-awq", 2},
                                         Format{"qwen2.5-gptq-asym-sharded-bf16", 1},
                                         Format{"qwen2.5-gptq-asym-sharded-bf16", 2}, Format{"qwen2.5-gptq-yarn", 1},
                                         Format{"qwen2.5-gptq-yarn", 2}, Format{"qwen3-gptq", 1},
                                         Format{"qwen3-gptq", 2}),
                         [](const auto& format) {
                           std::string name = format.param.name;
                           name += "_tp" + std::to_string(format.param.ranks);
                           std::replace_if(
                               name.begin(), name.end(), [](char c) { return !std::isalnum(c); }, '_');
                           return name;
                         });

// The same requests in our form and in OpenAI's, restrained in every way, over one rank and over two.
TEST(Batch, AnswersOpenAisLinesAsItsOwnWhateverTheRanks) {
  const nlohmann::json sampling = {{"max_tokens", 16},
                                   {"temperature", 0.9},
                                   {"seed", 7},
                                   {"logit_bias", {{"5", 2}, {"300", -100}}},
                                   {"bad_words", {"the", "and"}},
                                   {"min_tokens", 16},
                                   {"prompt", "And it came to pass"}};
  nlohmann::json own = sampling, body = sampling;
  own["id"] = "own";
  own["adapter"] = "kjv";
  body["model"] = "kjv";
  body["echo"] = true;
  body["return_token_ids"] = true;
  const nlohmann::json theirs = {
      {"custom_id", "theirs"}, {"method", "POST"}, {"url", "/v1/completions"}, {"body", body}};
  std::set<std::string> texts;
  for (const char* ranks : {"1", "2"}) {
    std::istringstream results(
        run_batch(own.dump() + "\n" + theirs.dump() + "\n", example_flags_with({"--tp", ranks})));
    std::string first, second;
    ASSERT_TRUE(std::getline(results, first) && std::getline(results, second));
    const auto result = nlohmann::json::parse(first), answer = nlohmann::json::parse(second);
    EXPECT_EQ(answer["custom_id"], "theirs");
    EXPECT_EQ(answer["response"]["status_code"], 200) << answer;
    const auto& choice = answer["response"]["body"]["choices"][0];
    EXPECT_EQ(choice["text"], "And it came to pass" + result["text"].get<std::string>());
    EXPECT_EQ(choice["token_ids"], result["token_ids"]);
    EXPECT_EQ(choice["token_ids"].size(), 16u) << "neither end nor stop before min_tokens";
    for (const auto& id : choice["token_ids"]) EXPECT_NE(id, 300);
    texts.insert(first);
  }
  EXPECT_EQ(texts.size(), 1u);
}

// Perplexity of a text in windows of 1,024 tokens, from prompt_logprobs.
double perplexity(const std::string& text_file, const nlohmann::json& adapter) {
  TempDir scratch;
  write_file(scratch / "text.jsonl", nlohmann::json{{"text", read_file(source_path(text_file))}}.dump() + "\n");
  const Finished tokenized =
      run_lorikeet({"tokenize", "--model", source_path("examples/models/tiny-qwen2-gptq-int4").string(),
                    "--no-parse-special", "--input", (scratch / "text.jsonl").string()});
  EXPECT_EQ(tokenized.status, 0) << tokenized.err;
  const auto ids = nlohmann::json::parse(tokenized.out)["ids"].get<std::vector<int32_t>>();
  std::string requests;
  for (size_t begin = 0; begin < ids.size(); begin += 1024) {
    const std::vector<int32_t> window(ids.begin() + static_cast<std::ptrdiff_t>(begin),
                                      ids.begin() + static_cast<std::ptrdiff_t>(std::min(begin + 1024, ids.size())));
    requests += nlohmann::json{{"id", std::to_string(begin)},
                               {"prompt_token_ids", window},
                               {"adapter", adapter},
                               {"max_tokens", 1},
                               {"prompt_logprobs", true}}
                    .dump() +
                "\n";
  }
  std::istringstream results(run_batch(requests, example_flags_with({"--tp", "2"})));
  double sum = 0;
  int count = 0;
  for (std::string line; std::getline(results, line);) {
    const auto result = nlohmann::json::parse(line);
    for (const auto& logprob : result["prompt_logprobs"]) {
      if (logprob.is_null()) continue;
      sum += logprob.get<double>();
      ++count;
    }
  }
  EXPECT_GT(count, 1000);
  return std::exp(-sum / count);
}

TEST(Batch, HalvesThePerplexityOfShakespeareWithItsAdapter) {
  const std::string text = "tests/data/text/heldout-shakespeare.txt";
  EXPECT_LT(perplexity(text, "shakespeare"), perplexity(text, nullptr) / 2);
}

TEST(Batch, HalvesThePerplexityOfTheKingJamesBibleWithItsAdapter) {
  const std::string text = "tests/data/text/heldout-kjv.txt";
  EXPECT_LT(perplexity(text, "kjv"), perplexity(text, nullptr) / 2);
}

TEST(Batch, AnswersEveryWrongLineWithItsSentenceAndServesTheOthers) {
  const std::string requests = R"({"id": "good", "prompt": "The sea", "max_tokens": 4})"
                               "\n"
                               "this is not JSON\n"
                               R"({"id": "adapter", "prompt": "x", "adapter": "nobody"})"
                               "\n"
                               R"({"id": "empty adapter", "prompt": "x", "adapter": ""})"
                               "\n"
                               R"({"id": "long", "prompt": "x", "max_tokens": 100000})"
                               "\n"
                               R"({"id": "ids", "prompt_token_ids": [1, 999999]})"
                               "\n"
                               R"({"id": "two prompts", "prompt": "x", "prompt_token_ids": [1]})"
                               "\n"
                               R"({"id": "none"})"
                               "\n"
                               R"({"id": "hot", "prompt": "x", "temperature": 9})"
                               "\n"
                               R"({"id": "unknown", "prompt": "x", "best_of": 3})"
                               "\n"
                               R"({"id": "17", "prompt": "The whale", "max_tokens": 4, "adapter": "moby"})"
                               "\n";
  std::istringstream lines(run_batch(requests, example_flags_with({"--tp", "2"})));
  std::vector<nlohmann::json> results;
  for (std::string line; std::getline(lines, line);) results.push_back(nlohmann::json::parse(line));
  ASSERT_EQ(results.size(), 11u);
  EXPECT_TRUE(results[0]["error"].is_null()) << results[0];
  EXPECT_EQ(results[0]["usage"]["completion_tokens"], 4);
  EXPECT_EQ(results[1]["line"], 2);
  EXPECT_TRUE(results[1]["id"].is_null());
  for (size_t i = 2; i < 10; ++i) EXPECT_FALSE(results[i]["error"]["message"].get<std::string>().empty()) << results[i];
  EXPECT_EQ(results[2]["error"]["code"], "unknown_adapter");
  EXPECT_EQ(results[3]["error"]["code"], "unknown_adapter");
  EXPECT_EQ(results[4]["error"]["code"], "too_long");
  EXPECT_EQ(results[8]["error"]["code"], "invalid_request");
  EXPECT_NE(results[9]["error"]["message"].get<std::string>().find("best_of"), std::string::npos) << results[9];
  EXPECT_EQ(results[10]["id"], "17");
  EXPECT_TRUE(results[10]["error"].is_null()) << results[10];
}

TEST(Batch, TellsAnInterruptionByItsStatusAndDoesTheRestOnResume) {
  constexpr int kLines = 60;
  TempDir scratch;
  std::string requests;
  for (int i = 0; i < kLines; ++i) {
    requests +=
        "{\"id\": " + std::to_string(i) + ", \"prompt\": \"The sea\", \"max_tokens\": 150, \"ignore_eos\": true}\n";
  }
  write_file(scratch / "in", requests);
  std::vector<std::string> flags = {"batch"};
  flags.insert(flags.end(), example_flags().begin(), example_flags().end());
  flags.insert(flags.end(), {"--max-num-seqs", "2", "--input", (scratch / "in").string(), "--output",
                             (scratch / "out").string(), "--resume"});
  const auto answered = [&] {
    const std::string out = std::filesystem::exists(scratch / "out") ? read_file(scratch / "out") : "";
    return std::count(out.begin(), out.end(), '\n');
  };
  for (const int signal : {SIGINT, SIGTERM}) {
    const auto before = answered();
    Process batch(flags, scratch, "batch");
    while (batch.running() && answered() < before + 2) std::this_thread::sleep_for(std::chrono::milliseconds(5));
    batch.signal(signal);
    EXPECT_EQ(batch.wait(), 128 + signal) << batch.err();
    EXPECT_NE(batch.err().find("--resume"), std::string::npos) << batch.err();
  }
  EXPECT_LT(answered(), kLines);
  const Finished rest = run_lorikeet(flags);
  EXPECT_EQ(rest.status, 0) << rest.err;
  std::set<int> ids;
  std::istringstream lines(read_file(scratch / "out"));
  for (std::string line; std::getline(lines, line);) {
    const auto result = nlohmann::json::parse(line);
    EXPECT_TRUE(result["error"].is_null()) << line;
    EXPECT_TRUE(ids.insert(result["id"].get<int>()).second) << line;
  }
  EXPECT_EQ(ids.size(), static_cast<size_t>(kLines));
}

TEST(Batch, TellsOfADiskThatIsFull) {
  TempDir scratch;
  write_file(scratch / "requests.jsonl", R"({"id": "1", "prompt": "x", "max_tokens": 2})"
                                         "\n");
  std::vector<std::string> flags = {"batch"};
  flags.insert(flags.end(), example_flags().begin(), example_flags().end());
  flags.insert(flags.end(), {"--input", (scratch / "requests.jsonl").string(), "--output", "/dev/full"});
  const Finished run = run_lorikeet(flags);
  EXPECT_EQ(run.status, 1);
  EXPECT_NE(run.err.find("cannot write to /dev/full: No space left on device"), std::string::npos) << run.err;
}

}  // namespace
}  // namespace lorikeet::tests
