// What happens to requests, counted as it happens: under vLLM's names, so that dashboards and routers made for it work
// unchanged, and per adapter under ours.
//
// Threads: one counts, any may collect.
#pragma once

#include <prometheus/counter.h>
#include <prometheus/family.h>
#include <prometheus/histogram.h>
#include <prometheus/metric_family.h>
#include <prometheus/registry.h>

#include <chrono>
#include <cstdint>
#include <memory>
#include <string>
#include <string_view>
#include <unordered_map>
#include <vector>

#include "actors/head/request_log.h"
#include "engine/ids.h"

namespace lorikeet::actors {

class RequestMetrics {
 public:
  using TimePoint = std::chrono::steady_clock::time_point;

  RequestMetrics(const std::string& model_name, int32_t max_model_len);

  // adapter: empty for the base model. Of adapters only the first kMaxAdapterLabels have a label of their own.
  void admitted(engine::SequenceId id, const std::string& adapter, int32_t prompt_tokens, TimePoint now,
                int32_t max_tokens = 0);
  void started(engine::SequenceId id, TimePoint when);                   // its first rows were planned
  void generated(engine::SequenceId id, int32_t tokens, TimePoint now);  // in one step
  // reason: stop, length, abort or error. Gives what is known of the request; its ids and sentences are the caller's.
  EndedRequest ended(engine::SequenceId id, std::string_view reason, TimePoint now, int32_t cached_tokens = 0);

  // A client's request of `n` choices has been answered, the longest with so many tokens. From any thread.
  void answered(int32_t n, int32_t longest);

  std::vector<prometheus::MetricFamily> collect() const { return registry_->Collect(); }

  static constexpr size_t kMaxAdapterLabels = 256;

 private:
  struct Adapter {
    prometheus::Counter* requests;
    prometheus::Counter* tokens;
  };
  struct Running {
    TimePoint admitted, first, last;  // first, last: of its tokens
    TimePoint planned;                // its first rows; the clock's begin: not yet
    int32_t prompt_tokens = 0, max_tokens = 0, tokens = 0;
    std::string adapter_name;
    Adapter* adapter = nullptr;
  };

  Adapter& adapter(const std::string& name);
  prometheus::Counter& ended_by(std::string_view reason);

  const prometheus::Labels labels_;
  const std::shared_ptr<prometheus::Registry> registry_;
  prometheus::Counter &prompt_tokens_, &generation_tokens_;
  prometheus::Histogram &time_to_first_token_, &inter_token_latency_, &time_per_output_token_, &e2e_latency_,
      &queue_time_, &prefill_time_, &decode_time_, &inference_time_, &request_prompt_tokens_,
      &request_generation_tokens_, &longest_generation_, &params_n_, &params_max_tokens_, &computed_prompt_tokens_;
  prometheus::Family<prometheus::Counter>&success_, &adapter_requests_, &adapter_tokens_;
  std::unordered_map<std::string, Adapter> adapters_;
  std::unordered_map<engine::SequenceId, Running> running_;
};

}  // namespace lorikeet::actors
