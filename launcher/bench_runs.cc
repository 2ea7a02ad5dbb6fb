#include "launcher/bench_runs.h"

#include <fmt/format.h>

#include <algorithm>
#include <memory>
#include <utility>

#include "launcher/bench_engine.h"
#include "launcher/random_adapters.h"
#include "launcher/sizes.h"

namespace lorikeet::launcher {
namespace {

constexpr double kUs = 1e6;

// What several rounds of one load have taken, in seconds.
struct Rounds {
  std::vector<double> batch;         // [rounds] until the last answer
  std::vector<double> first_token;   // [requests of all rounds]
  std::vector<double> first_tokens;  // [rounds] until every request has its first token
  std::vector<double> per_token;     // [rounds] of the request whose first token came last: no prompt is beside it
  actors::StepTotals steps;
  int64_t tokens = 0;
  double seconds = 0;

  void add(const Load& load, const actors::StepTotals& spent) {
    batch.push_back(load.seconds);
    for (const RequestTimes& times : load.requests) first_token.push_back(times.first_token - times.sent);
    const auto last = std::max_element(load.requests.begin(), load.requests.end(),
                                       [](const auto& a, const auto& b) { return a.first_token < b.first_token; });
    first_tokens.push_back(last->first_token);
    if (last->tokens > 1) per_token.push_back(last->seconds_per_token());
    tokens += load.tokens();
    seconds += load.seconds;
    steps += spent;
  }

  // Means over the decode steps, as the device saw them.
  double decode_step() const { return steps.decode_steps == 0 ? 0 : 1e-9 * steps.decode_ns / steps.decode_steps; }
  double decode_idle() const { return steps.decode_steps == 0 ? 0 : 1e-9 * steps.decode_idle_ns / steps.decode_steps; }
};

Result<void> run_round(BenchEngine& engine, std::vector<comm::GenerateRequest> requests, const LoadOptions& options,
                       Rounds& rounds) {
  const auto before = engine.step_totals();
  if (!before) return tl::unexpected(before.error());
  const auto load = engine.load(std::move(requests), options);
  if (!load) return tl::unexpected(load.error());
  auto spent = engine.step_totals();
  if (!spent) return tl::unexpected(spent.error());
  *spent -= *before;
  rounds.add(*load, *spent);
  return {};
}

void add_device_figures(BenchReport& report, const std::string& prefix, const Rounds& rounds, double decode_floor) {
  if (rounds.steps.decode_steps == 0) return;
  report.add(
      {prefix + "decode step on the device, mean", rounds.decode_step() * kMs, "ms", decode_floor * kMs, false, ""});
  report.add({prefix + "device idle before a decode step, mean", rounds.decode_idle() * kUs, "us", 0, false,
              fmt::format("{:.1f} % of the time",
                          100 * rounds.decode_idle() / std::max(1e-12, rounds.decode_idle() + rounds.decode_step()))});
  report.add({prefix + "device idle before a decode step, p99",
              1e-9 * static_cast<double>(rounds.steps.decode_idle.percentile(0.99)) * kUs, "us", 0, false, ""});
}

int64_t rounds_of(const BenchFlags& flags) {
  return int64_t{flags.num_iters_warmup} + flags.num_iters;
}

// The context of the mean decode step.
double mean_context(const BenchFlags& flags) {
  return flags.input_len + 0.5 * flags.output_len;
}

Result<std::unique_ptr<BenchEngine>> start(const BenchFlags& flags, BenchReport& report) {
  auto options = resolve(flags.server);
  if (!options) return tl::unexpected(options.error());
  auto engine = BenchEngine::start(*std::move(options));
  if (!engine) return engine;
  (*engine)->describe(report);
  return engine;
}

// Memory for all of the adapters at once in the head, in float32 as the CPU's slots take them; else they would take turns.
Result<std::string> staging_bytes(const BenchFlags& flags, const model::ModelConfig& config, int32_t adapters) {
  const auto given = parse_bytes(flags.server.max_cpu_lora_memory == "auto" ? "0" : flags.server.max_cpu_lora_memory);
  if (!given) return tl::unexpected(given.error());
  const auto whole = model::ShardPlan::make(config, 1);
  if (!whole) return tl::unexpected(whole.error());
  // At most: every rank has all of A or of B. One more for what is being read.
  const auto copies = static_cast<uint64_t>(flags.server.options.tensor_parallel_size + 1);
  const uint64_t of_one = model::step_cost(*whole, 0, {2, 2, 2}).adapter_bytes_per_rank *
                          static_cast<uint64_t>(flags.lora_rank) * copies * 2;
  return std::to_string(std::max(*given, of_one * static_cast<uint64_t>(adapters)));
}

// Writes random adapters named 0, 1, ... into `directory`; the flags of a server that has slots for all of them.
Result<BenchFlags> with_adapters(const BenchFlags& flags, int32_t adapters, const std::filesystem::path& directory) {
  BenchFlags result = flags;
  auto config = model::read_model_config(flags.server.options.model);
  if (!config) return tl::unexpected(config.error());
  actors::ServerOptions& options = result.server.options;
  const bool is_less = flags.server.max_loras == "auto" || parse_count(flags.server.max_loras, adapters);
  if (adapters > 0 && is_less) result.server.max_loras = std::to_string(adapters);
  if (options.max_cpu_loras > 0) options.max_cpu_loras = std::max(options.max_cpu_loras, adapters);
  auto staging = staging_bytes(flags, *config, adapters);
  if (!staging) return tl::unexpected(staging.error());
  result.server.max_cpu_lora_memory = *std::move(staging);
  for (int32_t i = 0; i < adapters; ++i) {
    const auto dir = directory / std::to_string(i);
    const auto written = write_random_adapter(dir, *config, flags.lora_rank, static_cast<uint64_t>(i));
    if (!written) return tl::unexpected(written.error());
    result.server.lora_modules.push_back(fmt::format("{}={}", i, dir.string()));
  }
  return result;
}

void take_adapters_in_turn(std::vector<comm::GenerateRequest>& requests, int32_t adapters) {
  for (size_t r = 0; r < requests.size() && adapters > 0; ++r) {
    requests[r].adapter = std::to_string(r % static_cast<size_t>(adapters));
  }
}

// A batch that loses one request at every step, so that no step has the adapters of the one before.
Result<void> add_changing_mix(BenchReport& report, BenchEngine& engine, const BenchFlags& flags) {
  Rounds warmup, rounds;
  // The batch's first request generates two tokens, every further one a token more.
  engine.expect_tokens(rounds_of(flags) * flags.batch_size * (int64_t{flags.batch_size} + 3) / 2);
  for (int32_t i = 0; i < flags.num_iters_warmup + flags.num_iters; ++i) {
    auto requests = engine.requests(static_cast<size_t>(flags.batch_size), flags.input_len, flags.output_len);
    take_adapters_in_turn(requests, flags.changing_adapters);
    for (size_t r = 0; r < requests.size(); ++r) requests[r].max_tokens = static_cast<int32_t>(r) + 2;
    Rounds& into = i < flags.num_iters_warmup ? warmup : rounds;
    if (auto ok = run_round(engine, std::move(requests), {}, into); !ok) return ok;
  }
  const int32_t distinct = std::min(flags.changing_adapters, flags.batch_size);
  add_device_figures(report, fmt::format("{} adapters, another mix at every step: ", distinct), rounds, 0);
  return {};
}

}  // namespace

Result<void> check_engine_flags(const BenchFlags& flags) {
  const auto options = resolve(flags.server);
  return options ? Result<void>() : tl::unexpected(options.error());
}

Result<std::vector<int32_t>> prefill_lengths(const std::vector<int32_t>& asked, int64_t longest) {
  for (const int32_t length : asked) {
    if (length > longest) return fail("--input-len {}: a prompt has room for {} tokens at the most", length, longest);
  }
  if (!asked.empty()) return asked;
  std::vector<int32_t> lengths;
  for (const int32_t length : kPrefillLengths) {
    if (length <= longest) lengths.push_back(length);
  }
  if (lengths.empty()) lengths.push_back(static_cast<int32_t>(longest));
  return lengths;
}

Result<void> bench_latency(const BenchFlags& flags, BenchReport& report) {
  auto directory = TemporaryDirectory::make();
  if (!directory) return tl::unexpected(directory.error());
  const auto served = with_adapters(flags, flags.changing_adapters, directory->path());
  if (!served) return tl::unexpected(served.error());
  auto started = start(*served, report);
  if (!started) return tl::unexpected(started.error());
  BenchEngine& engine = **started;
  report.describe("batch_size", flags.batch_size);
  report.describe("input_len", flags.input_len);
  report.describe("output_len", flags.output_len);
  Rounds warmup, rounds;
  engine.expect_tokens(rounds_of(flags) * flags.batch_size * flags.output_len);
  for (int32_t i = 0; i < flags.num_iters_warmup + flags.num_iters; ++i) {
    auto requests = engine.requests(static_cast<size_t>(flags.batch_size), flags.input_len, flags.output_len);
    Rounds& into = i < flags.num_iters_warmup ? warmup : rounds;
    if (auto ok = run_round(engine, std::move(requests), {}, into); !ok) return tl::unexpected(ok.error());
  }
  const double step = engine.decode_floor(flags.batch_size, mean_context(flags));
  const double prefill = engine.prefill_floor(flags.batch_size, flags.input_len);
  const double whole = prefill + (flags.output_len - 1) * step;
  report.add({"bytes read by a decode step", engine.cost().decode_bytes(flags.batch_size, mean_context(flags)) / 1e9,
              "GB", 0, false, ""});
  report.add({"batch, median", percentile(rounds.batch, 0.5), "s", whole, false, ""});
  report.add({"batch, p99", percentile(rounds.batch, 0.99), "s", whole, false, ""});
  report.add(
      {"first tokens of all, median", percentile(rounds.first_tokens, 0.5) * kMs, "ms", prefill * kMs, false, ""});
  report.add({"time per output token, median", percentile(rounds.per_token, 0.5) * kMs, "ms", step * kMs, false, ""});
  report.add({"time per output token, p99", percentile(rounds.per_token, 0.99) * kMs, "ms", step * kMs, false, ""});
  report.add({"output tokens", static_cast<double>(rounds.tokens) / rounds.seconds, "tokens/s",
              static_cast<double>(flags.batch_size) * flags.output_len / whole, true, ""});
  add_device_figures(report, "", rounds, step);
  if (flags.changing_adapters > 0) {
    if (auto ok = add_changing_mix(report, engine, flags); !ok) return tl::unexpected(ok.error());
  }
  return {};
}

Result<void> bench_throughput(const BenchFlags& flags, BenchReport& report) {
  auto started = start(flags, report);
  if (!started) return tl::unexpected(started.error());
  BenchEngine& engine = **started;
  const int32_t limit = flags.max_concurrency > 0 ? flags.max_concurrency : flags.num_prompts;
  const int32_t width = std::min({engine.options().max_num_seqs, limit, flags.num_prompts});
  report.describe("num_prompts", flags.num_prompts);
  report.describe("concurrency", width);
  report.describe("input_len", flags.input_len);
  report.describe("output_len", flags.output_len);
  LoadOptions load;
  load.max_concurrency = static_cast<size_t>(std::min(limit, engine.options().max_num_queued_reqs));
  engine.expect_tokens(int64_t{width + flags.num_prompts} * flags.output_len);
  Rounds warmup, rounds;
  const auto requests = [&](int32_t count) {
    return engine.requests(static_cast<size_t>(count), flags.input_len, flags.output_len);
  };
  if (auto ok = run_round(engine, requests(width), load, warmup); !ok) return tl::unexpected(ok.error());
  if (auto ok = run_round(engine, requests(flags.num_prompts), load, rounds); !ok) return tl::unexpected(ok.error());

  const double step = engine.decode_floor(width, mean_context(flags));
  const double waves = static_cast<double>(flags.num_prompts) / width;
  const double whole = engine.prefill_floor(flags.num_prompts, flags.input_len) + waves * (flags.output_len - 1) * step;
  const double seconds = rounds.seconds;
  const double prompts = flags.num_prompts;
  report.add({"whole run", seconds, "s", whole, false, ""});
  report.add({"requests", prompts / seconds, "/s", prompts / whole, true, ""});
  report.add({"tokens, prompts included", prompts * (flags.input_len + flags.output_len) / seconds, "tokens/s",
              prompts * (flags.input_len + flags.output_len) / whole, true, ""});
  report.add({"output tokens", static_cast<double>(rounds.tokens) / seconds, "tokens/s",
              prompts * flags.output_len / whole, true, ""});
  report.add({"first token, median", percentile(rounds.first_token, 0.5) * kMs, "ms", 0, false, ""});
  report.add({"first token, p99", percentile(rounds.first_token, 0.99) * kMs, "ms", 0, false, ""});
  add_device_figures(report, "", rounds, step);
  return {};
}

Result<void> bench_prefill(const BenchFlags& flags, BenchReport& report) {
  auto started = start(flags, report);
  if (!started) return tl::unexpected(started.error());
  BenchEngine& engine = **started;
  report.describe("max_num_batched_tokens", engine.options().max_num_batched_tokens);
  auto lengths = prefill_lengths(flags.input_lens, engine.longest_prompt());
  if (!lengths) return tl::unexpected(lengths.error());
  engine.expect_tokens(rounds_of(flags) * static_cast<int64_t>(lengths->size()));
  for (const int32_t length : *lengths) {
    Rounds warmup, rounds;
    for (int32_t i = 0; i < flags.num_iters_warmup + flags.num_iters; ++i) {
      Rounds& into = i < flags.num_iters_warmup ? warmup : rounds;
      if (auto ok = run_round(engine, engine.requests(1, length, 1), {}, into); !ok) return tl::unexpected(ok.error());
    }
    const double floor = engine.prefill_floor(1, length);
    const double median = percentile(rounds.first_token, 0.5);
    const std::string prefix = fmt::format("{} tokens: ", length);
    report.add({prefix + "first token, median", median * kMs, "ms", floor * kMs, false, ""});
    report.add({prefix + "prompt tokens", length / median, "tokens/s", length / floor, true, ""});
    if (rounds.steps.prefill_ns > 0) {
      const double device = 1e-9 * static_cast<double>(rounds.steps.prefill_ns) / flags.num_iters;
      report.add({prefix + "on the device, mean", device * kMs, "ms", floor * kMs, false, ""});
    }
  }
  return {};
}

Result<void> bench_lora(const BenchFlags& flags, BenchReport& report) {
  auto directory = TemporaryDirectory::make();
  if (!directory) return tl::unexpected(directory.error());
  const int32_t adapters = *std::max_element(flags.num_adapters.begin(), flags.num_adapters.end());
  const auto served = with_adapters(flags, adapters, directory->path());
  if (!served) return tl::unexpected(served.error());
  auto started = start(*served, report);
  if (!started) return tl::unexpected(started.error());
  BenchEngine& engine = **started;
  report.describe("batch_size", flags.batch_size);
  report.describe("lora_rank", flags.lora_rank);
  report.describe("input_len", flags.input_len);
  report.describe("output_len", flags.output_len);

  engine.expect_tokens(rounds_of(flags) * static_cast<int64_t>(flags.num_adapters.size()) * flags.batch_size *
                       flags.output_len);
  // In turn, so that what disturbs the machine disturbs all alike.
  std::vector<Rounds> warmup(flags.num_adapters.size()), rounds(flags.num_adapters.size());
  for (int32_t i = 0; i < flags.num_iters_warmup + flags.num_iters; ++i) {
    for (size_t n = 0; n < rounds.size(); ++n) {
      auto requests = engine.requests(static_cast<size_t>(flags.batch_size), flags.input_len, flags.output_len);
      take_adapters_in_turn(requests, flags.num_adapters[n]);
      Rounds& into = (i < flags.num_iters_warmup ? warmup : rounds)[n];
      if (auto ok = run_round(engine, std::move(requests), {}, into); !ok) return tl::unexpected(ok.error());
    }
  }
  const auto base = std::find(flags.num_adapters.begin(), flags.num_adapters.end(), 0);
  const double without =
      base == flags.num_adapters.end() ? 0 : percentile(rounds[base - flags.num_adapters.begin()].per_token, 0.5);
  for (size_t n = 0; n < rounds.size(); ++n) {
    const int32_t distinct = std::min(flags.num_adapters[n], flags.batch_size);
    const std::string prefix = fmt::format("{} adapters: ", distinct);
    const double step = engine.decode_floor(flags.batch_size, mean_context(flags), distinct, flags.lora_rank);
    const double taken = percentile(rounds[n].per_token, 0.5);
    std::string beside = without > 0 && distinct > 0 ? fmt::format("{:.2f} x without adapters", taken / without) : "";
    report.add({prefix + "time per output token, median", taken * kMs, "ms", step * kMs, false, std::move(beside)});
    report.add(
        {prefix + "first tokens of all, median", percentile(rounds[n].first_tokens, 0.5) * kMs, "ms", 0, false, ""});
    add_device_figures(report, prefix, rounds[n], step);
  }
  return {};
}

}  // namespace lorikeet::launcher
