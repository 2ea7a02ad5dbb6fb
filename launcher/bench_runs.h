// The benchmarks of `lorikeet bench`. Each runs its load and fills a report, which keeps its figures if the run fails.
#pragma once

#include <array>
#include <cstdint>
#include <string>
#include <vector>

#include "actors/wire/options.h"
#include "kernels/base/error.h"
#include "launcher/bench_report.h"
#include "launcher/server_flags.h"
#include "launcher/url_flags.h"
#include "launcher/zmq_flags.h"
#include "model/config/config.h"

namespace lorikeet::launcher {

// The load on a server that runs already.
struct ServeLoadFlags {
  ZmqFlags zmq;
  UrlFlags http;  // with a URL: over HTTP, with the key of `zmq`
  std::string model;
  std::vector<std::string> request_rates;
  double burstiness = 1;
  std::vector<std::string> adapters;
  std::string adapter_mix = "round-robin";
  double zipf_exponent = 1;
  std::vector<std::string> goodput;
  std::string trace;       // a file; empty: random lengths and times
  double trace_speed = 1;  // how many times faster it is replayed
  int32_t vocab_size = 0;  // 0: as the server says
  int32_t gpus = 1;
  std::string plot;
  uint64_t seed = 0;
};

struct BenchFlags {
  ServerFlags server;
  int32_t input_len = 0, output_len = 0;
  std::vector<int32_t> input_lens;  // prefill; none: kPrefillLengths, as far as they fit
  int32_t batch_size = 0;
  int32_t num_iters = 0, num_iters_warmup = 0;
  int32_t num_prompts = 0;
  int32_t max_concurrency = 0;        // 0: no limit
  std::vector<int32_t> num_adapters;  // lora: of each round; 0 is the base model
  int32_t changing_adapters = 0;      // latency: over which one more load changes its mix at every step
  int32_t lora_rank = 16;
  std::vector<std::string> lora_targets;  // adapters: the layers that adapters are for; none: all
  double loads_per_second = 0;            // adapters: beside steps; 0: one after the other
  std::string plot;                       // adapters: SVG file
  std::string output_json;
  ServeLoadFlags serve;
};

// Check flags before anything runs, so that a wrong command line has its own exit status: of benchmarks that start a server,
// of `bench adapters` in addition, and of `bench serve`.
Result<void> check_engine_flags(const BenchFlags& flags);
Result<void> check_adapters_flags(const BenchFlags& flags);
Result<void> check_serve_flags(const BenchFlags& flags);

// A batch of equal requests, sent at once, again and again: the cost of one step. With changing_adapters also the device's
// idle time between steps when no two steps in a row have the same adapters.
Result<void> bench_latency(const BenchFlags& flags, BenchReport& report);

// Many requests: throughput.
Result<void> bench_throughput(const BenchFlags& flags, BenchReport& report);

inline constexpr std::array<int32_t, 3> kPrefillLengths = {512, 2048, 8192};
// The lengths to measure where a prompt has at most `longest` tokens; what was asked for must fit.
Result<std::vector<int32_t>> prefill_lengths(const std::vector<int32_t>& asked, int64_t longest);

// Prompts of several lengths, one at a time: time to the first token.
Result<void> bench_prefill(const BenchFlags& flags, BenchReport& report);

// The same batch over no, one, and several distinct adapters, in turn.
Result<void> bench_lora(const BenchFlags& flags, BenchReport& report);

// check_adapters_flags for a server with these options.
Result<void> check_adapters_bench(const BenchFlags& flags, const actors::ServerOptions& options,
                                  const model::ModelConfig& config);

// Loading adapters: time to the first token by tier, loads per second, throughput over the number of adapters, delay of
// running streams by loads.
Result<void> bench_adapters(const BenchFlags& flags, BenchReport& report);

// A running server under load.
Result<void> bench_serve(const BenchFlags& flags, BenchReport& report);

}  // namespace lorikeet::launcher
