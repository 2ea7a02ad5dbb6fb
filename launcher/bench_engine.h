// What the offline benchmarks share: a server of their own, and the floors of the machine that it runs on.
#pragma once

#include <memory>
#include <string>
#include <vector>

#include "actors/wire/options.h"
#include "actors/wire/server_status.h"
#include "actors/wire/step_totals.h"
#include "kernels/base/error.h"
#include "kernels/base/floors.h"
#include "launcher/bench_report.h"
#include "launcher/load_client.h"
#include "launcher/local_server.h"
#include "model/forward/step_cost.h"

namespace lorikeet::launcher {

class BenchEngine {
 public:
  // Measures the machine, then starts the server and waits until it serves.
  static Result<std::unique_ptr<BenchEngine>> start(actors::ServerOptions options);

  // Fails when a request does.
  Result<Load> load(std::vector<comm::GenerateRequest> requests, const LoadOptions& options = {});
  // Tokens that load() will generate in all, for its progress bar.
  void expect_tokens(int64_t tokens) { expected_tokens_ += tokens; }
  std::vector<comm::GenerateRequest> requests(size_t count, int32_t input_len, int32_t output_len);

  // The longest prompt that leaves room for one generated token, in the context and in the KV pool.
  int64_t longest_prompt() const { return longest_prompt_; }

  // Another client of the server, for another thread.
  Result<std::unique_ptr<comm::ZmqClient>> connect() const { return server_->connect(); }

  // The server's status now.
  Result<actors::ServerStatus> status();
  // What steps took on the device since the start.
  Result<actors::StepTotals> step_totals();

  // The least time of a step in seconds: memory and, on a GPU, arithmetic.
  double decode_floor(double rows, double context, int32_t adapters = 0, int32_t adapter_rank = 0) const;
  double prefill_floor(int64_t prompts, int64_t tokens) const;

  const actors::ServerOptions& options() const { return options_; }
  const model::StepCost& cost() const { return cost_; }
  const model::ModelConfig& config() const { return config_; }

  // The model, the machine and what was measured of it.
  void describe(BenchReport& report) const;

 private:
  BenchEngine() = default;
  double floor_of(double bytes, double flops) const;

  actors::ServerOptions options_;
  model::ModelConfig config_;
  model::StepCost cost_;  // of rank 0, which has no less than the others
  std::string device_name_;
  kernels::Floors floors_;
  double ranks_per_device_ = 1;
  uint64_t next_seed_ = 1;
  int64_t kv_cache_tokens_ = 0;
  int64_t longest_prompt_ = 0;
  int64_t expected_tokens_ = 0, seen_tokens_ = 0;
  std::unique_ptr<LocalServer> server_;
};

}  // namespace lorikeet::launcher
