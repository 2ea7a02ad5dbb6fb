#include "launcher/status_view.h"

#include <fmt/format.h>

#include <algorithm>
#include <vector>

#include "actors/wire/adapter_list.h"
#include "launcher/adapters_view.h"
#include "launcher/help_formatter.h"
#include "launcher/text_table.h"
#include "launcher/units.h"

namespace lorikeet::launcher {
namespace {

using actors::ServerStatus;

constexpr size_t kNames = 12;  // columns of the names of what is said

class View {
 public:
  explicit View(const Terminal& terminal) : terminal_(terminal) {}

  void line(const std::string& name, const std::string& text) {
    out_ += coloured(terminal_, "1", padded(name, kNames)) + wrap(text, terminal_.columns - kNames, kNames) + "\n";
  }
  void title(const std::string& name, const std::string& text) {
    out_ += "\n";
    line(name, text);
  }
  void add(const std::string& text) { out_ += text; }
  size_t columns() const { return terminal_.columns; }
  const Terminal& terminal() const { return terminal_; }
  std::string text() && { return std::move(out_); }

 private:
  Terminal terminal_;
  std::string out_;
};

double seconds_of(uint64_t ns) {
  return 1e-9 * static_cast<double>(ns);
}

// What came since the look before; 0 where the server has been started anew meanwhile.
double per_second(uint64_t now, uint64_t before, double seconds) {
  return now < before ? 0 : static_cast<double>(now - before) / seconds;
}

void show_requests(const ServerStatus& status, View& view) {
  const engine::EngineStats& stats = status.serving.engine.stats;
  std::string text = fmt::format("{} running, {} waiting", count_text(stats.running), count_text(stats.waiting));
  if (stats.preempted > 0) text += fmt::format(" ({} of them preempted)", count_text(stats.preempted));
  if (const actors::QueueStatus& queues = status.serving.queues; queues.held > 0) {
    text += fmt::format(", {} held", count_text(static_cast<int64_t>(queues.held)));
    if (queues.reading_adapters > 0) text += fmt::format(" ({} for their adapter)", queues.reading_adapters);
  }
  view.line("requests", text);
}

void show_tokens(const ServerStatus& status, const std::optional<EarlierStatus>& earlier, View& view) {
  const engine::EngineStats& stats = status.serving.engine.stats;
  std::string text =
      fmt::format("{} generated, {} of prompts", count_text(static_cast<int64_t>(stats.generated_tokens)),
                  count_text(static_cast<int64_t>(stats.prompt_tokens)));
  if (stats.prefix_hit_tokens > 0) {
    text += fmt::format(" ({} from the prefix cache)", count_text(static_cast<int64_t>(stats.prefix_hit_tokens)));
  }
  view.line("tokens", text);
  if (!earlier) return;
  const engine::EngineStats& before = earlier->status.serving.engine.stats;
  view.line("rate",
            fmt::format("{} tokens/s generated, {} of prompts, in the last {}",
                        rate_text(per_second(stats.generated_tokens, before.generated_tokens, earlier->seconds_ago)),
                        rate_text(per_second(stats.prompt_tokens, before.prompt_tokens, earlier->seconds_ago)),
                        duration_text(earlier->seconds_ago)));
}

void show_kv_cache(const ServerStatus& status, View& view) {
  const engine::EngineStats& stats = status.serving.engine.stats;
  if (stats.blocks_total <= 0) return;
  const int32_t used = stats.blocks_total - stats.blocks_free;
  std::string text = fmt::format("{:.1f} % of {} tokens in use", 100.0 * used / stats.blocks_total,
                                 count_text(status.serving.kv_cache_tokens));
  if (stats.preemptions > 0)
    text += fmt::format("; {} preemptions", count_text(static_cast<int64_t>(stats.preemptions)));
  view.line("KV cache", text);
}

void show_steps(const actors::StepTotals& steps, View& view) {
  const auto mean = [](uint64_t ns, uint64_t count) {
    return duration_text(seconds_of(ns) / static_cast<double>(count));
  };
  if (steps.decode_steps > 0) {
    view.line("steps", fmt::format("{} decode steps of {}", count_text(static_cast<int64_t>(steps.decode_steps)),
                                   mean(steps.decode_ns, steps.decode_steps)));
  }
  if (steps.decode_idle.count() > 0) {
    const auto idle = [&](double p) { return duration_text(seconds_of(steps.decode_idle.percentile(p))); };
    view.line("idle", fmt::format("before one p50 {}, p90 {}, p99 {}", idle(0.5), idle(0.9), idle(0.99)));
  }
  if (steps.prefill_steps > 0) {
    view.line("prompts",
              fmt::format("{} steps with prompts, of {}", count_text(static_cast<int64_t>(steps.prefill_steps)),
                          mean(steps.prefill_ns, steps.prefill_steps)));
  }
}

void show_losses(const ServerStatus& status, View& view) {
  const uint64_t restarts = status.serving.epoch > 0 ? status.serving.epoch - 1 : 0;
  std::string text = restarts == 0 ? "none" : count_text(static_cast<int64_t>(restarts));
  if (const uint64_t resumed = status.serving.engine.stats.resumptions; resumed > 0) {
    text += fmt::format("; {} sequences went on after one", count_text(static_cast<int64_t>(resumed)));
  }
  view.line("restarts", text);
}

void show_ranks(const ServerStatus& status, View& view) {
  if (status.serving.ranks.empty()) return;
  std::vector<std::vector<std::string>> rows;
  for (const actors::RankStatus& rank : status.serving.ranks) {
    rows.push_back({rank.device.empty() ? "-" : rank.device, fmt::format("{}", rank.rank), rank.state,
                    fmt::format("{}", rank.pid), rank.host, bytes_text(rank.weight_bytes),
                    bytes_text(rank.kv_block_bytes *
                               static_cast<uint64_t>(std::max(0, status.serving.engine.stats.blocks_total)))});
  }
  view.title("ranks", fmt::format("{}", rows.size()));
  view.add(text_table(
      {{"device"}, {"rank", true}, {"state"}, {"pid", true}, {"host"}, {"weights", true}, {"KV cache", true}}, rows,
      view.columns()));
}

void show_pauses(const ServerStatus& status, View& view) {
  const actors::PauseTotals& pauses = status.serving.pauses;
  if (pauses.ended == 0) return;
  std::string text =
      fmt::format("{}, {} on average", count_text(static_cast<int64_t>(pauses.ended)),
                  duration_text(1e-6 * static_cast<double>(pauses.total_us) / static_cast<double>(pauses.ended)));
  if (!status.serving.last_pauses.empty()) {
    const actors::PauseStatus& last = status.serving.last_pauses.back();
    text += fmt::format("; the last {}: {}", duration_text(1e-6 * static_cast<double>(last.total_us)), last.why);
  }
  view.line("pauses", text);
}

void show_adapters(const ServerStatus& status, View& view) {
  const actors::AdapterList list = actors::adapter_list(status.adapters);
  const auto in_slots = std::count_if(list.adapters.begin(), list.adapters.end(),
                                      [](const actors::ListedAdapter& adapter) { return adapter.tier == "slot"; });
  std::string about =
      fmt::format("{}; {} in slots, {} in the head's memory", count_text(static_cast<int64_t>(list.adapters.size())),
                  in_slots, bytes_text(status.adapters.staged_bytes));
  if (status.adapters.transfers > 0) about += fmt::format(", {} on their way", status.adapters.transfers);
  if (status.adapters.blocked > 0) about += fmt::format(", {} on disks that do not answer", status.adapters.blocked);
  const actors::AdapterTiers& tiers = status.adapters.tiers;
  const auto hit_text = [](const actors::AdapterTier& tier) {
    const uint64_t looks = tier.hits + tier.misses;
    return fmt::format("{:.0f} %",
                       looks == 0 ? 0.0 : 100.0 * static_cast<double>(tier.hits) / static_cast<double>(looks));
  };
  if (tiers.slots.evictions + tiers.host.evictions > 0) {
    about += fmt::format("; found in slots {}, in memory {}; evicted {} and {} times", hit_text(tiers.slots),
                         hit_text(tiers.host), count_text(static_cast<int64_t>(tiers.slots.evictions)),
                         count_text(static_cast<int64_t>(tiers.host.evictions)));
  }
  view.title("adapters", about);
  view.add(adapters_table(list, view.terminal()));
}

}  // namespace

std::string status_view(const ServerStatus& status, const std::optional<EarlierStatus>& earlier,
                        const Terminal& terminal) {
  View view(terminal);
  const actors::ServingStatus& serving = status.serving;
  view.line("model", fmt::format("{}, context of {} tokens", status.model, count_text(status.max_model_len)));
  view.line("state", serving.serving ? coloured(terminal, "32", "serving") : coloured(terminal, "33", "not serving"));
  if (!serving.zmq.empty()) view.line("ZeroMQ", serving.zmq);
  view.line("processes", fmt::format("supervisor {}, head {}", status.supervisor.pid, serving.head.pid));
  show_losses(status, view);
  show_pauses(status, view);
  show_requests(status, view);
  show_tokens(status, earlier, view);
  show_kv_cache(status, view);
  show_steps(serving.steps, view);
  show_ranks(status, view);
  show_adapters(status, view);
  return std::move(view).text();
}

}  // namespace lorikeet::launcher
