// `lorikeet bench` on the example model: that every figure is there and stands beside a floor, not how large it is.
#include <fmt/format.h>
#include <gmock/gmock.h>

#include "tests/launcher/served.h"

namespace lorikeet::tests {
namespace {

using ::testing::HasSubstr;

// Runs `lorikeet bench KIND` over the example model, shortly; its figures by name.
std::map<std::string, nlohmann::json> run_bench(std::vector<std::string> flags) {
  TempDir scratch;
  flags.insert(flags.begin(), "bench");
  for (const std::string& flag : {std::string("--output-json"), (scratch / "figures.json").string()}) {
    flags.push_back(flag);
  }
  const Finished run = run_lorikeet(flags);
  EXPECT_EQ(run.status, 0) << run.err;
  EXPECT_THAT(run.out, HasSubstr("bench " + flags[1]));
  const auto json = nlohmann::json::parse(read_file(scratch / "figures.json"), nullptr, false);
  std::map<std::string, nlohmann::json> figures;
  if (!json.is_object()) return figures;
  for (const auto& figure : json["figures"]) figures[figure["name"]] = figure;
  return figures;
}

std::vector<std::string> over_example(std::vector<std::string> flags) {
  for (const std::string& flag :
       {std::string("--model"), source_path("examples/models/tiny-qwen2-gptq-int4").string(), std::string("--device"),
        std::string("cpu"), std::string("--max-num-seqs"), std::string("8")}) {
    flags.push_back(flag);
  }
  return flags;
}

void expect_beside_a_floor(const std::map<std::string, nlohmann::json>& figures, const std::string& name) {
  const auto it = figures.find(name);
  ASSERT_NE(it, figures.end()) << name;
  EXPECT_GT(it->second["value"], 0) << name;
  EXPECT_GT(it->second.value("floor", 0.0), 0) << name;
  EXPECT_GT(it->second.value("share", 0.0), 0) << name;
}

TEST(BenchCommand, LatencyShowsStepsAndTheirFloor) {
  const auto figures = run_bench(over_example({"latency", "--input-len", "8", "--output-len", "6", "--batch-size", "3",
                                               "--num-iters", "2", "--num-iters-warmup", "1", "--tp", "2"}));
  for (const char* name : {"batch, median", "first tokens of all, median", "time per output token, median",
                           "output tokens", "decode step on the device, mean"}) {
    expect_beside_a_floor(figures, name);
  }
  EXPECT_TRUE(figures.count("device idle before a decode step, mean"));
  EXPECT_TRUE(figures.count("device idle before a decode step, p99"));
}

TEST(BenchCommand, LatencyShowsTheIdleTimeOfAMixThatChangesAtEveryStep) {
  const auto figures =
      run_bench(over_example({"latency", "--input-len", "8", "--output-len", "6", "--batch-size", "4", "--num-iters",
                              "1", "--num-iters-warmup", "0", "--num-adapters", "3", "--lora-rank", "4"}));
  expect_beside_a_floor(figures, "output tokens");
  EXPECT_TRUE(figures.count("3 adapters, another mix at every step: device idle before a decode step, p99"));
}

TEST(BenchCommand, ThroughputShowsRatesAndTheirCeiling) {
  const auto figures = run_bench(over_example(
      {"throughput", "--input-len", "8", "--output-len", "6", "--num-prompts", "12", "--max-concurrency", "5"}));
  for (const char* name : {"whole run", "requests", "output tokens", "decode step on the device, mean"}) {
    expect_beside_a_floor(figures, name);
  }
}

TEST(BenchCommand, PrefillShowsEveryLength) {
  const auto figures =
      run_bench(over_example({"prefill", "--input-len", "16", "64", "--num-iters", "2", "--load-format", "dummy"}));
  expect_beside_a_floor(figures, "16 tokens: first token, median");
  expect_beside_a_floor(figures, "64 tokens: prompt tokens");
}

TEST(BenchCommand, LoraComparesNumbersOfAdapters) {
  const auto figures =
      run_bench(over_example({"lora", "--input-len", "8", "--output-len", "6", "--batch-size", "4", "--num-iters", "2",
                              "--num-adapters", "0", "1", "4", "--lora-rank", "4"}));
  for (const char* number : {"0", "1", "4"}) {
    expect_beside_a_floor(figures, std::string(number) + " adapters: time per output token, median");
  }
  EXPECT_THAT(figures.at("4 adapters: time per output token, median").value("against", ""), HasSubstr("x without"));
}

TEST(BenchCommand, AdaptersShowsEveryTierAndEveryNumber) {
  TempDir scratch;
  const std::string plot = (scratch / "adapters.svg").string();
  const auto figures = run_bench(over_example({"adapters", "--input-len",
                                               "8",        "--output-len",
                                               "6",        "--batch-size",
                                               "4",        "--num-prompts",
                                               "8",        "--num-iters",
                                               "1",        "--num-adapters",
                                               "0",        "1",
                                               "6",        "--max-loras",
                                               "2",        "--lora-rank",
                                               "4",        "--plot",
                                               plot}));
  for (const char* tier : {"disk", "page cache", "head's memory", "slot"}) {
    expect_beside_a_floor(figures, fmt::format("first token, {}, median", tier));
  }
  for (const char* name : {"loads into slots", "between tokens while adapters load, p99",
                           "steps while adapters load, p99", "steps while adapters load, longest",
                           "steps of 4 streams, on the device, mean", "steps while adapters load, on the device, mean",
                           "from disk into the head's memory, mean", "no adapter: output tokens"}) {
    ASSERT_TRUE(figures.count(name)) << name;
    EXPECT_GT(figures.at(name)["value"], 0) << name;
  }
  for (const char* load : {"1 adapter", "6 adapters, even", "6 adapters, Zipf 1"}) {
    expect_beside_a_floor(figures, std::string(load) + ": output tokens");
  }
  EXPECT_THAT(read_file(plot), HasSubstr("</svg>"));
  const Finished refused = run_lorikeet(over_example({"bench", "adapters", "--lora-targets", "x_proj"}));
  EXPECT_EQ(refused.status, 2);
  EXPECT_THAT(refused.err, HasSubstr("the model has no linear layer x_proj"));
  EXPECT_THAT(refused.err, ::testing::Not(HasSubstr("making"))) << "before anything is made";
}

TEST(BenchCommand, ServeLoadsARunningServer) {
  Served served;
  ASSERT_TRUE(served.ready());
  const auto figures = run_bench({"serve", "--zmq", served.address(), "--num-prompts", "6", "--input-len", "8",
                                  "--output-len", "4", "--request-rate", "100", "--adapter", "-", "moby"});
  expect_beside_a_floor(figures, "first token, p50");
  EXPECT_EQ(figures.at("requests that failed")["value"], 0);
  EXPECT_GT(figures.at("time per output token, p99")["value"], 0);
  const auto status = served.status();
  EXPECT_EQ(status["engine"]["generated_tokens"], 24);
  EXPECT_EQ(status["kv_cache_tokens"], status["engine"]["blocks_total"].get<int64_t>() * 16);
}

TEST(BenchCommand, ServeLoadsAnyServerWithOpenAisApi) {
  Served served({"--api-key", "secret"});
  ASSERT_TRUE(served.ready());
  TempDir scratch;
  const std::string plot = (scratch / "load.svg").string();
  const auto figures = run_bench({"serve",
                                  "--url",
                                  served.http_url(),
                                  "--api-key",
                                  "secret",
                                  "--num-prompts",
                                  "6",
                                  "--input-len",
                                  "8",
                                  "--output-len",
                                  "4",
                                  "--request-rate",
                                  "50",
                                  "inf",
                                  "--adapter",
                                  "kjv",
                                  "moby",
                                  "--adapter-mix",
                                  "zipf",
                                  "--goodput",
                                  "ttft:60000",
                                  "--plot",
                                  plot});
  EXPECT_EQ(figures.at("50 requests/s: requests that failed")["value"], 0);
  EXPECT_EQ(figures.at("no limit: requests that failed")["value"], 0);
  EXPECT_GT(figures.at("no limit: goodput")["value"], 0);
  EXPECT_GT(figures.at("no limit: between tokens, p99")["value"], 0);
  EXPECT_GT(figures.at("no limit: kjv: output tokens")["value"], 0);
  EXPECT_EQ(served.status()["engine"]["generated_tokens"], 48);
  EXPECT_THAT(read_file(plot), HasSubstr("</svg>"));
  const Finished stranger = run_lorikeet({"bench", "serve", "--url", served.http_url()});
  EXPECT_EQ(stranger.status, 1);
  EXPECT_THAT(stranger.err, HasSubstr("lorikeet bench serve: http://127.0.0.1:"));
}

TEST(BenchCommand, EndsWithASentenceWhereItCannotMeasure) {
  const Finished nowhere = run_lorikeet({"bench", "latency", "--model", "/nowhere", "--device", "cpu"});
  EXPECT_EQ(nowhere.status, 2);
  EXPECT_THAT(nowhere.err, HasSubstr("lorikeet bench latency: "));
  const Finished rate = run_lorikeet({"bench", "serve", "--request-rate", "often"});
  EXPECT_EQ(rate.status, 2);
  EXPECT_THAT(rate.err, HasSubstr("lorikeet bench serve: --request-rate often: "));
  const Finished unwritable =
      run_lorikeet(over_example({"bench", "latency", "--output-json", "/nowhere/figures.json"}));
  EXPECT_EQ(unwritable.status, 1);
  EXPECT_THAT(unwritable.err, HasSubstr("/nowhere/figures.json"));
  const Finished no_plot = run_lorikeet(over_example({"bench", "adapters", "--plot", "/nowhere/adapters.svg"}));
  EXPECT_EQ(no_plot.status, 1);
  EXPECT_THAT(no_plot.err, HasSubstr("--plot /nowhere/adapters.svg: the file cannot be written"));
  EXPECT_THAT(no_plot.err, ::testing::Not(HasSubstr("making"))) << "before anything is measured";
  const Finished too_long = run_lorikeet(over_example({"bench", "latency", "--input-len", "100000"}));
  EXPECT_EQ(too_long.status, 1);
  EXPECT_THAT(too_long.err, HasSubstr("a request failed: "));
}

}  // namespace
}  // namespace lorikeet::tests
