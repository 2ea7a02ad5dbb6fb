#include "launcher/bench_engine.h"

#include <fmt/format.h>

#include <algorithm>
#include <chrono>
#include <utility>

#include "kernels/base/console.h"
#include "launcher/device.h"
#include "launcher/status_query.h"
#include "launcher/units.h"
#include "model/config/config.h"

namespace lorikeet::launcher {
namespace {

constexpr std::chrono::seconds kEnginePatience{60};

model::ElementBytes element_bytes(const actors::ServerOptions& options) {
  if (options.device == "cpu") return {2, 4, 4};  // float32 but for unquantised weights, which stay as they are stored
  return {2, options.kv_cache_dtype == "fp8" ? 1 : 2, 2};
}

}  // namespace

Result<std::unique_ptr<BenchEngine>> BenchEngine::start(actors::ServerOptions options) {
  options.time_steps = true;
  std::unique_ptr<BenchEngine> engine(new BenchEngine);
  auto config = model::read_model_config(options.model);
  if (!config) return tl::unexpected(config.error());
  auto plan = model::ShardPlan::make(*config, options.tensor_parallel_size);
  if (!plan) return tl::unexpected(plan.error());
  engine->cost_ = model::step_cost(*plan, 0, element_bytes(options));
  engine->config_ = *std::move(config);

  say("measuring the floors");
  auto device = measure_device(options.device);
  if (!device) return tl::unexpected(device.error());
  engine->device_name_ = device->name;
  engine->floors_ = device->floors;
  engine->ranks_per_device_ = (options.tensor_parallel_size + device->count - 1) / device->count;

  auto server = LocalServer::start("lorikeet bench", options);
  if (!server) return tl::unexpected(server.error());
  engine->server_ = *std::move(server);
  engine->options_ = std::move(options);
  auto status = ask_status(engine->server_->client(), kEnginePatience);
  if (!status) return tl::unexpected(status.error());
  const auto read = read_status(status->json);
  if (!read) return tl::unexpected(read.error());
  engine->kv_cache_tokens_ = read->serving.kv_cache_tokens;
  engine->longest_prompt_ = std::min<int64_t>(read->max_model_len - 1, engine->kv_cache_tokens_);
  return engine;
}

Result<Load> BenchEngine::load(std::vector<comm::GenerateRequest> requests, const LoadOptions& options) {
  LoadOptions with_progress = options;
  const auto begin = std::chrono::steady_clock::now();
  with_progress.on_progress = [&](size_t, int64_t tokens) {
    const double seconds = std::chrono::duration<double>(std::chrono::steady_clock::now() - begin).count();
    server_->progress().show({"measuring", seen_tokens_ + tokens, expected_tokens_, "tokens",
                              rate_text(static_cast<double>(tokens) / seconds) + " tokens/s"});
  };
  auto load = run_load(server_->client(), std::move(requests), with_progress, [this] { return server_->stopped(); });
  if (!load) return load;
  seen_tokens_ += load->tokens();
  if (seen_tokens_ >= expected_tokens_) server_->progress().end();
  if (const std::string* error = load->first_error()) return fail("a request failed: {}", *error);
  return load;
}

std::vector<comm::GenerateRequest> BenchEngine::requests(size_t count, int32_t input_len, int32_t output_len) {
  return random_requests(count, input_len, output_len, config_.vocab_size, next_seed_++);
}

Result<actors::ServerStatus> BenchEngine::status() {
  const auto answer = ask_status(server_->client(), kEnginePatience);
  if (!answer) return tl::unexpected(answer.error());
  return read_status(answer->json);
}

Result<actors::StepTotals> BenchEngine::step_totals() {
  const auto now = status();
  if (!now) return tl::unexpected(now.error());
  return now->serving.steps;
}

double BenchEngine::floor_of(double bytes, double flops) const {
  const double memory = bytes / floors_.read;
  const double arithmetic = floors_.f16_flops > 0 ? flops / floors_.f16_flops : 0;
  return ranks_per_device_ * std::max(memory, arithmetic);
}

double BenchEngine::decode_floor(double rows, double context, int32_t adapters, int32_t adapter_rank) const {
  return floor_of(cost_.decode_bytes(rows, context, adapters, adapter_rank), cost_.decode_flops(rows, context));
}

double BenchEngine::prefill_floor(int64_t prompts, int64_t tokens) const {
  return floor_of(cost_.prefill_bytes(prompts, tokens, options_.max_num_batched_tokens),
                  cost_.prefill_flops(prompts, tokens));
}

void BenchEngine::describe(BenchReport& report) const {
  report.describe("model", options_.model);
  report.describe("load_format", options_.load_format);
  report.describe("device", device_name_);
  report.describe("tensor_parallel_size", options_.tensor_parallel_size);
  report.describe("kv_cache_tokens", kv_cache_tokens_);
  report.describe("read_bytes_per_second", floors_.read);
  report.describe("copy_bytes_per_second", floors_.copy);
  if (floors_.f16_flops > 0) report.describe("library_f16_flops", floors_.f16_flops);
  report.describe("weight_bytes_per_step", cost_.layer_bytes + cost_.lm_head_bytes);
  report.describe("kv_bytes_per_position", cost_.kv_bytes_per_position);
}

}  // namespace lorikeet::launcher
