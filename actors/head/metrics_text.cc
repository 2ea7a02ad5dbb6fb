#include "actors/head/metrics_text.h"

#include <fmt/format.h>
#include <prometheus/text_serializer.h>

#include <algorithm>
#include <limits>
#include <sstream>
#include <tuple>
#include <utility>

#include "actors/wire/adapter_list.h"

namespace lorikeet::actors {
namespace {

using prometheus::ClientMetric;
using prometheus::MetricFamily;
using prometheus::MetricType;
using LabelList = std::vector<ClientMetric::Label>;

constexpr size_t kMaxAdapters = 256;  // with metrics of their own
constexpr double kNanoseconds = 1e-9;
constexpr double kLoadSeconds[] = {0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60};

class Families {
 public:
  Families(std::vector<MetricFamily> begun, LabelList common)
      : families_(std::move(begun)), common_(std::move(common)) {}

  void gauge(std::string name, std::string help, double value, LabelList labels = {}) {
    ClientMetric metric = labelled(std::move(labels));
    metric.gauge.value = value;
    add(std::move(name), std::move(help), MetricType::Gauge, std::move(metric));
  }

  void counter(std::string name, std::string help, double value, LabelList labels = {}) {
    ClientMetric metric = labelled(std::move(labels));
    metric.counter.value = value;
    add(std::move(name), std::move(help), MetricType::Counter, std::move(metric));
  }

  // counts: of each bucket alone, one more than there are bounds.
  template <class Bounds>
  void histogram(std::string name, std::string help, const Bounds& bounds, const std::vector<uint64_t>& counts,
                 double sum) {
    ClientMetric metric = labelled({});
    uint64_t before = 0;
    for (size_t i = 0; i < counts.size(); ++i) {
      before += counts[i];
      metric.histogram.bucket.push_back(
          {before, i < bounds.size() ? static_cast<double>(bounds[i]) : std::numeric_limits<double>::infinity()});
    }
    metric.histogram.sample_count = before;
    metric.histogram.sample_sum = sum;
    add(std::move(name), std::move(help), MetricType::Histogram, std::move(metric));
  }

  // A duration near a bucket's bound may be counted above it: TimeHistogram knows them to an eighth of their length.
  void histogram(std::string name, std::string help, const Durations& times, LabelList labels = {}) {
    ClientMetric metric = labelled(std::move(labels));
    const TimeHistogram::Plain counts = times.histogram.plain();
    const auto count_up_to = [&](double seconds) {
      uint64_t count = 0;
      for (const auto& [longest_ns, more] : counts) {
        if (static_cast<double>(longest_ns) * kNanoseconds <= seconds) count += more;
      }
      return count;
    };
    for (const double bound : kLoadSeconds) metric.histogram.bucket.push_back({count_up_to(bound), bound});
    metric.histogram.bucket.push_back({times.histogram.count(), std::numeric_limits<double>::infinity()});
    metric.histogram.sample_count = times.histogram.count();
    metric.histogram.sample_sum = static_cast<double>(times.ns) * kNanoseconds;
    add(std::move(name), std::move(help), MetricType::Histogram, std::move(metric));
  }

  std::string text() const {
    std::ostringstream out;
    prometheus::TextSerializer().Serialize(out, families_);
    return out.str();
  }

 private:
  ClientMetric labelled(LabelList labels) const {
    ClientMetric metric;
    metric.label = common_;
    for (auto& label : labels) metric.label.push_back(std::move(label));
    return metric;
  }

  // What belongs to one family comes one after the other.
  void add(std::string name, std::string help, MetricType type, ClientMetric metric) {
    if (families_.empty() || families_.back().name != name) {
      families_.push_back({std::move(name), std::move(help), type, {}});
    }
    families_.back().metric.push_back(std::move(metric));
  }

  std::vector<MetricFamily> families_;
  const LabelList common_;
};

void add_engine(Families& families, const ServingStatus& serving, int32_t block_size) {
  const engine::EngineStats& engine = serving.engine.stats;
  const auto waiting = static_cast<double>(serving.queues.held) + engine.waiting;
  families.gauge("vllm:num_requests_running", "Requests that the ranks work on", engine.running);
  families.gauge("vllm:num_requests_waiting", "Requests that wait for their turn, their adapter or the ranks", waiting);
  const int32_t used = engine.blocks_total - engine.blocks_free;
  families.gauge("vllm:kv_cache_usage_perc", "Share of the KV cache that sequences hold; 1 is all of it",
                 engine.blocks_total > 0 ? static_cast<double>(used) / engine.blocks_total : 0);
  families.gauge("vllm:cache_config_info", "The KV cache", 1,
                 {{"block_size", std::to_string(block_size)}, {"num_gpu_blocks", std::to_string(engine.blocks_total)}});
  families.counter("vllm:prefix_cache_queries_total", "Tokens of prompts that were looked for in the prefix cache",
                   static_cast<double>(engine.prompt_tokens));
  families.counter("vllm:prefix_cache_hits_total", "Tokens of prompts that were found there",
                   static_cast<double>(engine.prefix_hit_tokens));
  families.counter("vllm:num_preemptions_total", "Sequences that gave their blocks up and were computed again",
                   static_cast<double>(engine.preemptions));
  families.counter("lorikeet:plans_total", "Steps planned", static_cast<double>(engine.plans));
  families.gauge("lorikeet:serving", "1: every rank serves", serving.serving ? 1 : 0);
  families.gauge("lorikeet:epoch", "Lives of the group of ranks, from 1", static_cast<double>(serving.epoch));
  families.counter("lorikeet:restarts_total", "Times that the group of ranks was started anew",
                   serving.epoch > 0 ? static_cast<double>(serving.epoch - 1) : 0);
  families.counter("lorikeet:rank_faults_total", "Of them: because a rank failed by itself",
                   static_cast<double>(serving.pauses.losses_by_rank));
  families.counter("lorikeet:pauses_total", "Times in which no stream got on since ranks were lost",
                   static_cast<double>(serving.pauses.ended));
  families.counter("lorikeet:pause_seconds_total", "Their length", static_cast<double>(serving.pauses.total_us) * 1e-6);
}

void add_steps(Families& families, const StepTotals& steps) {
  families.histogram("vllm:iteration_tokens_total", "Tokens of a step, of prompts and generated ones",
                     StepTokens::kBounds, steps.step_tokens.plain(), static_cast<double>(steps.tokens));
  families.counter("lorikeet:decode_steps_total", "Steps with one token per sequence",
                   static_cast<double>(steps.decode_steps));
  families.counter("lorikeet:decode_seconds_total", "Time of rank 0's device in them",
                   static_cast<double>(steps.decode_ns) * kNanoseconds);
  families.counter("lorikeet:decode_idle_seconds_total", "Time that it stood still before them",
                   static_cast<double>(steps.decode_idle_ns) * kNanoseconds);
  families.counter("lorikeet:prefill_steps_total", "The other steps", static_cast<double>(steps.prefill_steps));
  families.counter("lorikeet:prefill_seconds_total", "Time of rank 0's device in them",
                   static_cast<double>(steps.prefill_ns) * kNanoseconds);
}

void add_ranks(Families& families, const std::vector<RankStatus>& ranks) {
  for (const RankStatus& rank : ranks) {
    families.gauge("lorikeet:rank_ready", "1: the rank serves", rank.state == "ready" ? 1 : 0,
                   {{"rank", std::to_string(rank.rank)}, {"device", rank.device}});
  }
  for (const RankStatus& rank : ranks) {
    families.gauge("lorikeet:rank_weight_bytes", "Weights of the base model on the rank",
                   static_cast<double>(rank.weight_bytes), {{"rank", std::to_string(rank.rank)}});
  }
}

// Where an adapter's weights are: as vLLM's proposal names the tiers.
std::string vllm_tier_of(const AdapterStatus& adapter) {
  const std::string tier(tier_of(adapter));
  return tier == "slot" ? "gpu" : tier == "host" ? "cpu" : tier;
}

// Which adapters are where, under the names that vLLM's routers are to read.
void add_residency(Families& families, const AdaptersStatus& status, int32_t max_loras) {
  size_t in_slots = 0, in_memory = 0, on_disk = status.unlisted, series = 0;
  for (const AdapterStatus& adapter : status.adapters) {
    const bool slot = adapter.slot_state == "resident";
    const bool host = adapter.host == "staged" || adapter.host == "replaced";
    in_slots += slot ? 1 : 0;
    in_memory += host ? 1 : 0;
    on_disk += !slot && !host ? 1 : 0;
    const char* pinned = adapter.pinned ? "true" : "false";
    for (const auto& [level, loaded] : {std::pair("gpu", slot), std::pair("cpu", host)}) {
      if (!loaded || series == kMaxAdapters) continue;
      ++series;
      families.gauge("vllm:lora_adapter_loaded", "1: the adapter's weights are in the slots (gpu), in memory (cpu)", 1,
                     {{"adapter_name", adapter.name}, {"level", level}, {"pinned", pinned}});
    }
  }
  families.gauge("vllm:num_gpu_loaded_lora_adapters", "Adapters in the ranks' slots", static_cast<double>(in_slots));
  families.gauge("vllm:num_cpu_loaded_lora_adapters", "Adapters in the head's memory", static_cast<double>(in_memory));
  families.gauge("vllm:max_gpu_lora_adapters", "Slots of each rank", max_loras);
  families.gauge("lorikeet:adapters_on_disk", "Adapters that are in neither", static_cast<double>(on_disk));
  const AdapterLookups& lookups = status.lookups;
  const std::tuple<const char*, uint64_t, uint64_t> levels[] = {{"gpu", lookups.slot_lookups, lookups.slot_hits},
                                                                {"cpu", lookups.lookups, lookups.host_hits}};
  for (const auto& [level, count, hits] : levels) {
    families.counter("vllm:lora_cache_lookups_total", "Requests whose adapter was looked for in slots or memory",
                     static_cast<double>(count), {{"level", level}});
  }
  for (const auto& [level, count, hits] : levels) {
    families.counter("vllm:lora_cache_hits_total", "Requests whose adapter was there", static_cast<double>(hits),
                     {{"level", level}});
  }
  const std::pair<const char*, const AdapterTier&> tiers[] = {{"gpu", status.tiers.slots}, {"cpu", status.tiers.host}};
  for (const auto& [level, tier] : tiers) {
    families.gauge("lorikeet:adapter_tier_bytes", "Bytes of adapters in slots (of each rank), in the head's memory",
                   static_cast<double>(tier.bytes), {{"level", level}});
  }
  for (const auto& [level, tier] : tiers) {
    families.gauge("lorikeet:adapter_tier_budget_bytes", "Bytes that they may take; 0: no limit",
                   static_cast<double>(tier.budget_bytes), {{"level", level}});
  }
  for (const auto& [level, tier] : tiers) {
    families.counter("lorikeet:adapter_evictions_total", "Adapters that made room for others",
                     static_cast<double>(tier.evictions), {{"level", level}});
  }
  const char* const help = "Time that an adapter took from disk into memory (cpu), from there to all ranks (gpu)";
  families.histogram("vllm:lora_adapter_load_seconds", help, status.sends, {{"level", "gpu"}});
  families.histogram("vllm:lora_adapter_load_seconds", help, status.reads, {{"level", "cpu"}});
}

void add_adapters(Families& families, const AdaptersStatus& status, int32_t max_loras, int64_t now) {
  std::string running, waiting;
  size_t resident = 0, staged = 0;
  size_t listed = 0;  // a label is bounded, too
  const auto append = [&listed](std::string& list, const std::string& name) {
    if (listed++ < kMaxAdapters) list += (list.empty() ? "" : ",") + name;
  };
  for (const AdapterStatus& adapter : status.adapters) {
    if (adapter.leases > 0) append(running, adapter.name);
    if (adapter.claims > adapter.leases) append(waiting, adapter.name);
    resident += adapter.slot_state == "resident" ? 1 : 0;
    staged += adapter.host == "staged" ? 1 : 0;
  }
  families.gauge("vllm:lora_requests_info", "Adapters of running and waiting requests; the value is the time",
                 static_cast<double>(now),
                 {{"max_lora", std::to_string(max_loras)},
                  {"running_lora_adapters", running},
                  {"waiting_lora_adapters", waiting}});
  families.gauge("lorikeet:adapters_resident", "Adapters in the ranks' slots", static_cast<double>(resident));
  families.gauge("lorikeet:adapters_staged", "Adapters in the head's memory", static_cast<double>(staged));
  families.gauge("lorikeet:adapter_staged_bytes", "Bytes of them", static_cast<double>(status.staged_bytes));
  families.gauge("lorikeet:adapter_transfers", "Adapters on their way to the ranks",
                 static_cast<double>(status.transfers));
  const size_t shown = std::min(status.adapters.size(), kMaxAdapters);
  for (size_t i = 0; i < shown; ++i) {
    const AdapterStatus& adapter = status.adapters[i];
    families.gauge("vllm:lora_loaded_adapters_info", "1, with the tier that an adapter's weights are in", 1,
                   {{"lora_name", adapter.name}, {"tier", vllm_tier_of(adapter)}});
  }
  for (size_t i = 0; i < shown; ++i) {
    const AdapterStatus& adapter = status.adapters[i];
    families.gauge("lorikeet:adapter_running_requests", "Requests that the engine runs on an adapter",
                   static_cast<double>(adapter.leases), {{"adapter", adapter.name}});
  }
}

}  // namespace

std::string metrics_text(const ServerStatus& status, std::vector<MetricFamily> counted, int32_t max_loras,
                         int32_t block_size, int64_t now) {
  Families families(std::move(counted), {{"model_name", status.model}, {"engine", "0"}});
  add_engine(families, status.serving, block_size);
  add_steps(families, status.serving.steps);
  add_ranks(families, status.serving.ranks);
  add_adapters(families, status.adapters, max_loras, now);
  add_residency(families, status.adapters, max_loras);
  return families.text();
}

}  // namespace lorikeet::actors
