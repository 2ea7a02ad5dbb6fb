// `lorikeet bench adapters`: makes adapters, starts a server for them and has launcher/adapter_measures.h measure.
#include <fmt/format.h>

#include <algorithm>
#include <filesystem>
#include <string>

#include "actors/wire/kv_budget.h"
#include "kernels/base/console.h"
#include "launcher/adapter_measures.h"
#include "launcher/bench_engine.h"
#include "launcher/bench_runs.h"
#include "launcher/local_server.h"
#include "launcher/random_adapters.h"
#include "launcher/units.h"

namespace lorikeet::launcher {
namespace {

constexpr int32_t kMostAdapters = 100'000, kMostFilledSlots = 65'536;

}  // namespace

Result<void> check_adapters_bench(const BenchFlags& flags, const actors::ServerOptions& options,
                                  const model::ModelConfig& config) {
  if (!options.lora_modules.empty()) return fail("--lora-modules: `bench adapters` makes its adapters itself");
  if (auto ok = check_targets(config, flags.lora_targets); !ok) return fail("--lora-targets: {}", ok.error().message);
  for (const int32_t number : flags.num_adapters) {
    if (number > kMostAdapters) return fail("--num-adapters {}: at most {} are made", number, kMostAdapters);
  }
  if (flags.lora_rank > options.max_lora_rank) {
    return fail("--lora-rank {}: the server takes adapters up to --max-lora-rank {}", flags.lora_rank,
                options.max_lora_rank);
  }
  const uint64_t bytes = random_adapter_bytes(config, flags.lora_rank, flags.lora_targets);
  if (bytes > options.max_cpu_lora_bytes) {
    return fail("--max-cpu-lora-bytes {}: an adapter of rank {} takes {}", bytes_text(options.max_cpu_lora_bytes),
                flags.lora_rank, bytes_text(bytes));
  }
  const auto context = actors::context_length(options, config);
  if (!context) return tl::unexpected(context.error());
  if (int64_t{flags.input_len} + flags.output_len > *context) {
    return fail("--input-len {} and --output-len {}: a sequence has room for {} tokens", flags.input_len,
                flags.output_len, *context);
  }
  const auto at_once = int64_t{flags.batch_size} + static_cast<int64_t>(kLoadsBesideStreams);
  if (at_once > options.max_num_queued_reqs) {
    return fail("--batch-size {}: with {} requests beside it that is more than may wait (--max-num-queued-reqs {})",
                flags.batch_size, kLoadsBesideStreams, options.max_num_queued_reqs);
  }
  return {};
}

Result<void> check_adapters_flags(const BenchFlags& flags) {
  const auto options = resolve(flags.server);
  if (!options) return tl::unexpected(options.error());
  const auto config = model::read_model_config(options->model);
  if (!config) return tl::unexpected(config.error());
  return check_adapters_bench(flags, *options, *config);
}

Result<void> bench_adapters(const BenchFlags& flags, BenchReport& report) {
  BenchFlags served = flags;
  auto options = resolve(served.server);
  if (!options) return tl::unexpected(options.error());
  auto config = model::read_model_config(options->model);
  if (!config) return tl::unexpected(config.error());
  auto directory = TemporaryDirectory::make();
  if (!directory) return tl::unexpected(directory.error());
  const int32_t most = flags.num_adapters.empty() ? 0 : *std::ranges::max_element(flags.num_adapters);
  const BenchAdapters adapters{std::max(most, std::min(options->max_loras, kMostFilledSlots) + kBeyondSlots),
                               2 * flags.num_iters, directory->path()};
  const uint64_t bytes = random_adapter_bytes(*config, flags.lora_rank, flags.lora_targets);
  say("making {} adapters of {} in {}", adapters.size(), bytes_text(bytes), directory->path().string());
  const auto made =
      write_random_adapters(directory->path(), adapters.size(), *config, flags.lora_rank, flags.lora_targets);
  if (!made) return made;
  for (int32_t i = 0; i < adapters.size(); ++i) {
    const std::string name = std::to_string(i);
    served.server.lora_modules.push_back(fmt::format("{}={}", name, (directory->path() / name).string()));
  }
  options = resolve(served.server);
  if (!options) return tl::unexpected(options.error());
  auto started = BenchEngine::start(*std::move(options));
  if (!started) return tl::unexpected(started.error());
  BenchEngine& engine = **started;
  engine.describe(report);
  report.describe("lora_rank", flags.lora_rank);
  if (!flags.lora_targets.empty()) report.describe("lora_targets", flags.lora_targets);
  report.describe("adapter_bytes", bytes);
  report.describe("slots", engine.options().max_loras);
  report.describe("head_memory_bytes", engine.options().max_cpu_lora_bytes);
  report.describe("batch_size", flags.batch_size);
  report.describe("input_len", flags.input_len);
  report.describe("output_len", flags.output_len);
  engine.expect_tokens(tokens_of_measures(flags, adapters, engine.longest_prompt()));
  return measure_adapters(flags, report, engine, adapters);
}

}  // namespace lorikeet::launcher
