#include "actors/head/request_metrics.h"

#include <algorithm>

namespace lorikeet::actors {
namespace {

using prometheus::Counter;
using prometheus::Family;
using prometheus::Histogram;
using prometheus::Labels;
using prometheus::Registry;
using Buckets = Histogram::BucketBoundaries;

// vLLM's buckets, since dashboards compute quantiles from them.
const Buckets kFirstToken = {0.001, 0.005, 0.01, 0.02, 0.04, 0.06, 0.08, 0.1, 0.25, 0.5, 0.75,
                             1,     2.5,   5,    7.5,  10,   20,   40,   80,  160,  640, 2560};
const Buckets kBetweenTokens = {0.01, 0.025, 0.05, 0.075, 0.1, 0.15, 0.2, 0.3, 0.4, 0.5,
                                0.75, 1,     2.5,  5,     7.5, 10,   20,  40,  80};
const Buckets kRequest = {0.3, 0.5, 0.8, 1, 1.5, 2, 2.5, 5, 10, 15, 20, 30, 40, 50, 60, 120, 240, 480, 960, 1920, 7680};

const Buckets kChoices = {1, 2, 5, 10, 20};

// 1, 2, 5, 10, ... up to what a sequence holds.
Buckets token_buckets(int32_t max_model_len) {
  Buckets buckets;
  for (int64_t power = 1; power <= max_model_len; power *= 10) {
    for (const int64_t digit : {1, 2, 5}) {
      if (digit * power <= max_model_len) buckets.push_back(static_cast<double>(digit * power));
    }
  }
  return buckets;
}

Family<Counter>& counter(Registry& registry, const std::string& name, const std::string& help) {
  return prometheus::BuildCounter().Name(name).Help(help).Register(registry);
}

Histogram& histogram(Registry& registry, const std::string& name, const std::string& help, const Labels& labels,
                     const Buckets& buckets) {
  return prometheus::BuildHistogram().Name(name).Help(help).Register(registry).Add(labels, buckets);
}

double seconds(RequestMetrics::TimePoint from, RequestMetrics::TimePoint to) {
  return std::chrono::duration<double>(to - from).count();
}

}  // namespace

RequestMetrics::RequestMetrics(const std::string& model_name, int32_t max_model_len)
    : labels_({{"model_name", model_name}, {"engine", "0"}}),
      registry_(std::make_shared<Registry>()),
      prompt_tokens_(counter(*registry_, "vllm:prompt_tokens_total", "Tokens of prompts that were taken").Add(labels_)),
      generation_tokens_(counter(*registry_, "vllm:generation_tokens_total", "Tokens generated").Add(labels_)),
      time_to_first_token_(histogram(*registry_, "vllm:time_to_first_token_seconds",
                                     "From a request's admission to its first token", labels_, kFirstToken)),
      inter_token_latency_(histogram(*registry_, "vllm:inter_token_latency_seconds", "Between two tokens of a request",
                                     labels_, kBetweenTokens)),
      time_per_output_token_(histogram(*registry_, "vllm:request_time_per_output_token_seconds",
                                       "Mean of a request's times between tokens", labels_, kBetweenTokens)),
      e2e_latency_(histogram(*registry_, "vllm:e2e_request_latency_seconds", "From a request's admission to its end",
                             labels_, kRequest)),
      queue_time_(histogram(*registry_, "vllm:request_queue_time_seconds",
                            "From a request's admission to the plan of its first rows", labels_, kRequest)),
      prefill_time_(histogram(*registry_, "vllm:request_prefill_time_seconds",
                              "From the plan of a request's first rows to its first token", labels_, kRequest)),
      decode_time_(histogram(*registry_, "vllm:request_decode_time_seconds", "From a request's first token to its last",
                             labels_, kRequest)),
      inference_time_(histogram(*registry_, "vllm:request_inference_time_seconds",
                                "From the plan of a request's first rows to its last token", labels_, kRequest)),
      request_prompt_tokens_(histogram(*registry_, "vllm:request_prompt_tokens", "Tokens of a request's prompt",
                                       labels_, token_buckets(max_model_len))),
      request_generation_tokens_(histogram(*registry_, "vllm:request_generation_tokens",
                                           "Tokens generated for a request", labels_, token_buckets(max_model_len))),
      longest_generation_(histogram(*registry_, "vllm:request_max_num_generation_tokens",
                                    "Tokens of the longest choice of a client's request", labels_,
                                    token_buckets(max_model_len))),
      params_n_(
          histogram(*registry_, "vllm:request_params_n", "The parameter n of a client's request", labels_, kChoices)),
      params_max_tokens_(histogram(*registry_, "vllm:request_params_max_tokens", "Tokens that a request may generate",
                                   labels_, token_buckets(max_model_len))),
      computed_prompt_tokens_(histogram(*registry_, "vllm:request_prefill_kv_computed_tokens",
                                        "Tokens of a request's prompt that the prefix cache did not have", labels_,
                                        token_buckets(max_model_len))),
      success_(counter(*registry_, "vllm:request_success_total", "Requests that have ended, by finished_reason")),
      adapter_requests_(counter(*registry_, "lorikeet:adapter_requests_total",
                                "Requests taken, by adapter; empty: the base model, \"...\": the others")),
      adapter_tokens_(counter(*registry_, "lorikeet:adapter_generation_tokens_total",
                              "Tokens generated, by adapter; empty: the base model, \"...\": the others")) {
  for (const char* reason : {"stop", "length", "abort", "error"}) ended_by(reason);
}

RequestMetrics::Adapter& RequestMetrics::adapter(const std::string& name) {
  if (const auto found = adapters_.find(name); found != adapters_.end()) return found->second;
  if (adapters_.size() >= kMaxAdapterLabels && name != "...") return adapter("...");
  Labels labels = labels_;
  labels["adapter"] = name;
  return adapters_.emplace(name, Adapter{&adapter_requests_.Add(labels), &adapter_tokens_.Add(labels)}).first->second;
}

Counter& RequestMetrics::ended_by(std::string_view reason) {
  Labels labels = labels_;
  labels["finished_reason"] = std::string(reason);
  return success_.Add(labels);
}

void RequestMetrics::admitted(engine::SequenceId id, const std::string& adapter_name, int32_t prompt_tokens,
                              TimePoint now, int32_t max_tokens) {
  Adapter& known = adapter(adapter_name);
  known.requests->Increment();
  prompt_tokens_.Increment(prompt_tokens);
  running_[id] = {now, {}, {}, {}, prompt_tokens, max_tokens, 0, adapter_name, &known};
}

void RequestMetrics::started(engine::SequenceId id, TimePoint when) {
  const auto found = running_.find(id);
  if (found != running_.end()) found->second.planned = std::max(when, found->second.admitted);
}

void RequestMetrics::answered(int32_t n, int32_t longest) {
  params_n_.Observe(n);
  longest_generation_.Observe(longest);
}

void RequestMetrics::generated(engine::SequenceId id, int32_t tokens, TimePoint now) {
  const auto found = running_.find(id);
  if (found == running_.end() || tokens <= 0) return;
  Running& request = found->second;
  if (request.tokens == 0) {
    request.first = now;
    time_to_first_token_.Observe(seconds(request.admitted, now));
  } else {
    inter_token_latency_.Observe(seconds(request.last, now));
  }
  request.last = now;
  request.tokens += tokens;
  generation_tokens_.Increment(tokens);
  request.adapter->tokens->Increment(tokens);
}

EndedRequest RequestMetrics::ended(engine::SequenceId id, std::string_view reason, TimePoint now,
                                   int32_t cached_tokens) {
  EndedRequest ended;
  ended.reason = reason;
  const auto found = running_.extract(id);
  if (!found) return ended;
  const Running& request = found.mapped();
  ended.adapter = request.adapter_name;
  ended.prompt_tokens = request.prompt_tokens;
  ended.tokens = request.tokens;
  ended.total = now - request.admitted;
  ended_by(reason).Increment();
  e2e_latency_.Observe(seconds(request.admitted, now));
  request_prompt_tokens_.Observe(request.prompt_tokens);
  request_generation_tokens_.Observe(request.tokens);
  params_max_tokens_.Observe(request.max_tokens);
  computed_prompt_tokens_.Observe(std::max(0, request.prompt_tokens - cached_tokens));
  const bool planned = request.planned != TimePoint{};
  if (planned) queue_time_.Observe(seconds(request.admitted, request.planned));
  if (request.tokens == 0) return ended;
  ended.to_first_token = request.first - request.admitted;
  decode_time_.Observe(seconds(request.first, request.last));
  if (planned) {
    prefill_time_.Observe(seconds(request.planned, request.first));
    inference_time_.Observe(seconds(request.planned, request.last));
  }
  if (request.tokens > 1) time_per_output_token_.Observe(seconds(request.first, request.last) / (request.tokens - 1));
  return ended;
}

}  // namespace lorikeet::actors
