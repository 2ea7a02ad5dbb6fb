#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "actors/head/metrics_text.h"
#include "actors/head/request_metrics.h"

namespace lorikeet::actors {
namespace {

using engine::SequenceId;
using std::chrono::milliseconds;
using ::testing::HasSubstr;
using ::testing::Not;

constexpr const char* kLabels = "{engine=\"0\",model_name=\"tiny\"}";

std::string text_of(const RequestMetrics& metrics, const ServerStatus& status = {}) {
  return metrics_text(status, metrics.collect(), 8, 16, 1700000000);
}

TEST(RequestMetrics, CountRequestsTokensAndTimes) {
  RequestMetrics metrics("tiny", 100);
  const RequestMetrics::TimePoint begin{};
  metrics.admitted(SequenceId(1), "moby", 10, begin);
  metrics.generated(SequenceId(1), 1, begin + milliseconds(30));
  metrics.generated(SequenceId(1), 1, begin + milliseconds(50));
  metrics.generated(SequenceId(1), 1, begin + milliseconds(70));
  metrics.ended(SequenceId(1), "length", begin + milliseconds(400));
  metrics.admitted(SequenceId(2), "", 5, begin);
  metrics.ended(SequenceId(2), "error", begin + milliseconds(100));
  metrics.generated(SequenceId(2), 1, begin);  // it is over
  metrics.ended(SequenceId(2), "stop", begin);
  const std::string text = text_of(metrics);
  const std::string common = std::string(kLabels).substr(1, std::string(kLabels).size() - 2);
  EXPECT_THAT(text, HasSubstr("vllm:prompt_tokens_total" + std::string(kLabels) + " 15\n"));
  EXPECT_THAT(text, HasSubstr("vllm:generation_tokens_total" + std::string(kLabels) + " 3\n"));
  EXPECT_THAT(text, HasSubstr("vllm:time_to_first_token_seconds_bucket{" + common + ",le=\"0.02\"} 0\n"));
  EXPECT_THAT(text, HasSubstr("vllm:time_to_first_token_seconds_bucket{" + common + ",le=\"0.04\"} 1\n"));
  EXPECT_THAT(text, HasSubstr("vllm:time_to_first_token_seconds_count" + std::string(kLabels) + " 1\n"));
  EXPECT_THAT(text, HasSubstr("vllm:inter_token_latency_seconds_bucket{" + common + ",le=\"0.025\"} 2\n"));
  EXPECT_THAT(text, HasSubstr("vllm:e2e_request_latency_seconds_count" + std::string(kLabels) + " 2\n"));
  EXPECT_THAT(text, HasSubstr("vllm:request_generation_tokens_sum" + std::string(kLabels) + " 3\n"));
  EXPECT_THAT(text,
              HasSubstr("vllm:request_success_total{engine=\"0\",finished_reason=\"length\",model_name=\"tiny\"} 1\n"));
  EXPECT_THAT(text,
              HasSubstr("vllm:request_success_total{engine=\"0\",finished_reason=\"error\",model_name=\"tiny\"} 1\n"));
  EXPECT_THAT(text,
              HasSubstr("vllm:request_success_total{engine=\"0\",finished_reason=\"stop\",model_name=\"tiny\"} 0\n"));
  EXPECT_THAT(
      text,
      HasSubstr("lorikeet:adapter_generation_tokens_total{adapter=\"moby\",engine=\"0\",model_name=\"tiny\"} 3\n"));
}

TEST(RequestMetrics, TellTheStagesOfARequestApart) {
  RequestMetrics metrics("tiny", 100);
  const RequestMetrics::TimePoint begin{std::chrono::seconds(100)};
  metrics.admitted(SequenceId(1), "", 10, begin, 16);
  metrics.started(SequenceId(1), begin + milliseconds(500));
  metrics.generated(SequenceId(1), 1, begin + milliseconds(1500));
  metrics.generated(SequenceId(1), 1, begin + milliseconds(3500));
  metrics.ended(SequenceId(1), "length", begin + milliseconds(9000), 4);
  metrics.admitted(SequenceId(2), "", 10, begin, 16);
  metrics.ended(SequenceId(2), "abort", begin + milliseconds(1000));  // it never left the queue
  metrics.answered(3, 7);
  const std::string text = text_of(metrics);
  const std::pair<const char*, const char*> sums[] = {
      {"vllm:request_queue_time_seconds", "0.5"},     {"vllm:request_prefill_time_seconds", "1"},
      {"vllm:request_decode_time_seconds", "2"},      {"vllm:request_inference_time_seconds", "3"},
      {"vllm:request_params_max_tokens", "32"},       {"vllm:request_prefill_kv_computed_tokens", "16"},
      {"vllm:request_prompt_tokens", "20"},           {"vllm:request_params_n", "3"},
      {"vllm:request_max_num_generation_tokens", "7"}};
  for (const auto& [name, sum] : sums) {
    EXPECT_THAT(text, HasSubstr(std::string(name) + "_sum" + kLabels + " " + sum + "\n"));
  }
  EXPECT_THAT(text, HasSubstr("vllm:request_queue_time_seconds_count" + std::string(kLabels) + " 1\n"));
}

TEST(RequestMetrics, GiveOnlySoManyAdaptersALabel) {
  RequestMetrics metrics("tiny", 100);
  for (size_t i = 0; i < RequestMetrics::kMaxAdapterLabels + 10; ++i) {
    metrics.admitted(SequenceId(i), "a" + std::to_string(i), 1, {});
  }
  const std::string text = text_of(metrics);
  EXPECT_THAT(text, HasSubstr("lorikeet:adapter_requests_total{adapter=\"a255\","));
  EXPECT_THAT(text, Not(HasSubstr("adapter=\"a256\"")));
  EXPECT_THAT(text,
              HasSubstr("lorikeet:adapter_requests_total{adapter=\"...\",engine=\"0\",model_name=\"tiny\"} 10\n"));
}

TEST(MetricsText, SaysWhatTheServerDoesUnderVllmsNames) {
  ServerStatus status;
  status.model = "tiny";
  status.serving.serving = true;
  status.serving.epoch = 3;
  status.serving.queues.held = 2;
  engine::EngineStats& engine = status.serving.engine.stats;
  engine.running = 4;
  engine.waiting = 1;
  engine.blocks_total = 100;
  engine.blocks_free = 75;
  engine.prompt_tokens = 1000;
  engine.prefix_hit_tokens = 250;
  engine::StepPlan step;
  step.rows = {{SequenceId(1), 0, 40, false}, {SequenceId(2), 7, 1, true}};
  status.serving.steps.count_tokens(step);
  step.rows = {{SequenceId(2), 8, 1, true}};
  status.serving.steps.count_tokens(step);
  RankStatus rank;
  rank.state = "ready";
  rank.device = "cpu";
  status.serving.ranks = {rank};
  AdapterStatus moby, kjv, disk;
  moby.name = "moby";
  moby.host = "staged";
  moby.slot_state = "resident";
  moby.leases = moby.claims = 2;
  kjv.name = "kjv";
  kjv.host = "staged";
  kjv.slot_state = "waiting";
  kjv.claims = 1;
  disk.name = "a \"quoted\"\nname";
  disk.host = "on_disk";
  status.adapters.adapters = {moby, kjv, disk};
  const std::string text = text_of(RequestMetrics("tiny", 100), status);
  const char* common = "{model_name=\"tiny\",engine=\"0\"}";
  const std::pair<const char*, const char*> plain[] = {
      {"vllm:num_requests_running", "4"},      {"vllm:num_requests_waiting", "3"},
      {"vllm:kv_cache_usage_perc", "0.25"},    {"vllm:prefix_cache_queries_total", "1000"},
      {"vllm:prefix_cache_hits_total", "250"}, {"lorikeet:serving", "1"},
      {"lorikeet:restarts_total", "2"},        {"lorikeet:adapters_resident", "1"},
      {"lorikeet:adapters_staged", "2"}};
  for (const auto& [name, value] : plain) {
    EXPECT_THAT(text, HasSubstr(std::string(name) + common + " " + value + "\n"));
  }
  EXPECT_THAT(text, HasSubstr("vllm:iteration_tokens_total_bucket{model_name=\"tiny\",engine=\"0\",le=\"1\"} 1\n"));
  EXPECT_THAT(text, HasSubstr("vllm:iteration_tokens_total_bucket{model_name=\"tiny\",engine=\"0\",le=\"32\"} 1\n"));
  EXPECT_THAT(text, HasSubstr("vllm:iteration_tokens_total_bucket{model_name=\"tiny\",engine=\"0\",le=\"64\"} 2\n"));
  EXPECT_THAT(text, HasSubstr("vllm:iteration_tokens_total_bucket{model_name=\"tiny\",engine=\"0\",le=\"+Inf\"} 2\n"));
  EXPECT_THAT(text, HasSubstr("vllm:iteration_tokens_total_sum{model_name=\"tiny\",engine=\"0\"} 42\n"));
  EXPECT_THAT(text, HasSubstr("vllm:lora_requests_info{model_name=\"tiny\",engine=\"0\",max_lora=\"8\","
                              "running_lora_adapters=\"moby\",waiting_lora_adapters=\"kjv\"} 1700000000\n"));
  EXPECT_THAT(text, HasSubstr("lora_name=\"moby\",tier=\"gpu\"} 1\n"));
  EXPECT_THAT(text, HasSubstr("lora_name=\"kjv\",tier=\"cpu\"} 1\n"));
  EXPECT_THAT(text, HasSubstr("lora_name=\"a \\\"quoted\\\"\\nname\",tier=\"disk\"} 1\n"));
  EXPECT_THAT(text, HasSubstr("lorikeet:rank_ready{model_name=\"tiny\",engine=\"0\",rank=\"0\",device=\"cpu\"} 1\n"));
}

TEST(MetricsText, SaysWhichAdaptersAreWhereAndHowLongTheyTook) {
  ServerStatus status;
  AdapterStatus slot, host, disk;
  slot.name = "moby";
  slot.host = "staged";
  slot.slot_state = "resident";
  slot.pinned = true;
  host.name = "kjv";
  host.host = "staged";
  disk.name = "late";
  disk.host = "on_disk";
  status.adapters.adapters = {slot, host, disk};
  status.adapters.lookups = {10, 7, 9, 4};
  status.adapters.reads.add(20'000'000);
  status.adapters.sends.add(600'000'000);
  status.adapters.sends.add(3'000'000);
  const std::string text = text_of(RequestMetrics("tiny", 100), status);
  EXPECT_THAT(text, HasSubstr("adapter_name=\"moby\",level=\"gpu\",pinned=\"true\"} 1\n"));
  EXPECT_THAT(text, HasSubstr("adapter_name=\"moby\",level=\"cpu\",pinned=\"true\"} 1\n"));
  EXPECT_THAT(text, HasSubstr("adapter_name=\"kjv\",level=\"cpu\",pinned=\"false\"} 1\n"));
  EXPECT_THAT(text, Not(HasSubstr("adapter_name=\"late\"")));
  const char* common = "{model_name=\"\",engine=\"0\"";
  const std::pair<const char*, const char*> lines[] = {{"vllm:num_gpu_loaded_lora_adapters", "} 1"},
                                                       {"vllm:num_cpu_loaded_lora_adapters", "} 2"},
                                                       {"vllm:max_gpu_lora_adapters", "} 8"},
                                                       {"lorikeet:adapters_on_disk", "} 1"},
                                                       {"vllm:lora_cache_lookups_total", ",level=\"gpu\"} 9"},
                                                       {"vllm:lora_cache_hits_total", ",level=\"gpu\"} 4"},
                                                       {"vllm:lora_cache_lookups_total", ",level=\"cpu\"} 10"},
                                                       {"vllm:lora_cache_hits_total", ",level=\"cpu\"} 7"},
                                                       {"vllm:lora_adapter_load_seconds_count", ",level=\"gpu\"} 2"},
                                                       {"vllm:lora_adapter_load_seconds_count", ",level=\"cpu\"} 1"}};
  for (const auto& [name, rest] : lines) EXPECT_THAT(text, HasSubstr(std::string(name) + common + rest + "\n"));
  EXPECT_THAT(text, HasSubstr(std::string("vllm:lora_adapter_load_seconds_sum") + common + ",level=\"gpu\"} 0.603"));
  EXPECT_THAT(text, HasSubstr(",level=\"gpu\",le=\"0.005\"} 1\n"));
  EXPECT_THAT(text, HasSubstr(",level=\"gpu\",le=\"0.5\"} 1\n"));
  EXPECT_THAT(text, HasSubstr(",level=\"gpu\",le=\"1\"} 2\n"));
}

TEST(MetricsText, CountsTheAdaptersThatABriefStatusDoesNotList) {
  ServerStatus status;
  AdapterStatus host;
  host.name = "kjv";
  host.host = "staged";
  status.adapters.adapters = {host};
  status.adapters.unlisted = 100'000;
  const std::string text = text_of(RequestMetrics("tiny", 100), status);
  EXPECT_THAT(text, HasSubstr("lorikeet:adapters_on_disk{model_name=\"\",engine=\"0\"} 100000\n"));
  EXPECT_THAT(text, HasSubstr("vllm:num_cpu_loaded_lora_adapters{model_name=\"\",engine=\"0\"} 1\n"));
}

TEST(MetricsText, DoesNotGrowWithTheNumberOfAdapters) {
  ServerStatus status;
  AdapterStatus adapter;
  adapter.host = "staged";
  adapter.slot_state = "resident";
  adapter.leases = adapter.claims = 1;
  const auto size_with = [&](size_t count) {
    while (status.adapters.adapters.size() < count) {
      adapter.name = "adapter-" + std::to_string(10000 + status.adapters.adapters.size());
      status.adapters.adapters.push_back(adapter);
    }
    return text_of(RequestMetrics("tiny", 100), status).size();
  };
  const size_t few = size_with(300);
  EXPECT_LT(size_with(3000), few + 100);  // numbers have more digits
}

}  // namespace
}  // namespace lorikeet::actors
