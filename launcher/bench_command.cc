#include <fmt/format.h>

#include <fstream>
#include <memory>

#include "kernels/base/console.h"
#include "launcher/bench_runs.h"
#include "launcher/commands.h"
#include "launcher/exit_status.h"
#include "launcher/flag_values.h"
#include "launcher/http_flags.h"
#include "launcher/zmq_flags.h"

namespace lorikeet::launcher {
namespace {

using BenchFunction = Result<void> (*)(const BenchFlags&, BenchReport&);
using CheckFunction = Result<void> (*)(const BenchFlags&);

Result<void> run(const std::string& name, BenchFunction bench, const BenchFlags& flags) {
  // Opened first: a bench takes long, and its figures must not be lost to a mistyped path.
  std::ofstream json;
  if (!flags.output_json.empty()) {
    json.open(flags.output_json);
    if (!json) return fail("--output-json {}: the file cannot be written", flags.output_json);
  }
  for (const std::string& plot : {flags.plot, flags.serve.plot}) {
    if (!plot.empty() && !std::ofstream(plot, std::ios::app))
      return fail("--plot {}: the file cannot be written", plot);
  }
  BenchReport report(name);
  const auto done = bench(flags, report);
  if (!done && report.figures().empty()) return done;
  const auto shown = write_text(stdout, report.table());
  if (json.is_open() && !(json << report.json().dump(2) << std::endl)) {
    return fail("--output-json {}: the file cannot be written", flags.output_json);
  }
  return done ? shown : done;
}

// One kind of bench: its subcommand, with --output-json.
std::pair<CLI::App*, std::shared_ptr<BenchFlags>> add_bench(CLI::App& app, int& exit_status, const std::string& name,
                                                            CheckFunction check, BenchFunction bench,
                                                            const std::string& description) {
  auto flags = std::make_shared<BenchFlags>();
  CLI::App* command = app.add_subcommand(name, description);
  command->option_defaults()->always_capture_default();
  command->add_option("--output-json", flags->output_json, "File to write the figures to as JSON");
  command->callback([flags, check, bench, name, &exit_status] {
    const auto fine = check(*flags);
    exit_status = fine ? exit_status_of("bench " + name, run(name, bench, *flags))
                       : report_failure("bench " + name, fine.error(), kWrongCommandLine);
  });
  return {command, flags};
}

void add_engine_flags(CLI::App& app, BenchFlags& flags) {
  add_server_flags(app, flags.server);
  refuse_http_flags(app, flags.server.foreign);
  app.remove_option(app.get_option("--zmq"));
}

void add_lengths(CLI::App& app, BenchFlags& flags, int32_t input_len, int32_t output_len) {
  flags.input_len = input_len;
  flags.output_len = output_len;
  app.add_option("--input-len,--random-input-len", flags.input_len, "Tokens of a prompt, drawn at random")
      ->check(count_from(1));
  app.add_option("--output-len,--random-output-len", flags.output_len, "Tokens to generate")->check(count_from(1));
}

void add_batch(CLI::App& app, BenchFlags& flags, int32_t batch_size) {
  flags.batch_size = batch_size;
  app.add_option("--batch-size", flags.batch_size, "Requests that are sent at once")->check(count_from(1));
}

void add_iterations(CLI::App& app, BenchFlags& flags, int32_t warmup, int32_t iterations) {
  flags.num_iters_warmup = warmup;
  flags.num_iters = iterations;
  app.add_option("--num-iters-warmup", flags.num_iters_warmup, "Rounds that are not counted")->check(count_from(0));
  app.add_option("--num-iters", flags.num_iters, "Rounds that are")->check(count_from(1));
}

void add_lora_rank(CLI::App& app, BenchFlags& flags) {
  app.add_option("--lora-rank", flags.lora_rank, "Rank of the adapters, which are drawn at random")
      ->check(CLI::Range(1, 512));
}

void add_load(CLI::App& app, BenchFlags& flags, int32_t num_prompts) {
  flags.num_prompts = num_prompts;
  app.add_option("--num-prompts", flags.num_prompts, "Requests in all")->check(count_from(1));
  app.add_option("--max-concurrency", flags.max_concurrency, "Requests that are with the server at once (0: all)")
      ->check(count_from(0));
}

void add_serve_load(CLI::App& app, ServeLoadFlags& flags) {
  const std::string server = "Server";
  add_zmq_flags(app, flags.zmq);
  add_url_flags(app, flags.http);
  app.add_option("--model", flags.model, "Name of the base model (default: the first that the server names)")
      ->group(server);
  app.add_option("--vocab-size", flags.vocab_size, "Ids of random prompts are below it (0: as the server says)")
      ->check(count_from(0))
      ->group(server);
  const std::string load = "Load";
  app.add_option("--request-rate", flags.request_rates,
                 "Requests a second, or inf; several are run one after the other (default: inf)")
      ->group(load);
  app.add_option("--burstiness", flags.burstiness,
                 "Shape of the gamma distribution of the distances: 1 is a Poisson process, less is burstier")
      ->check(finite_number(1e-3, 1e6))
      ->group(load);
  app.add_option(
         "--trace", flags.trace,
         "Replay a file of lines {\"timestamp\": ms, \"input_length\": N, \"output_length\": N, \"adapter\": NAME}")
      ->group(load);
  app.add_option("--trace-speed", flags.trace_speed, "How many times faster")
      ->check(finite_number(1e-3, 1e6))
      ->group(load);
  app.add_option("--seed", flags.seed, "Of prompts, adapters and distances")->check(whole_number())->group(load);
  const std::string adapters = "Adapters";
  app.add_option("--adapter,--lora-modules", flags.adapters, "Adapters that the requests ask for; - is the base model")
      ->group(adapters);
  app.add_option("--adapter-mix", flags.adapter_mix, "In which order")
      ->check(CLI::IsMember({"round-robin", "uniform", "zipf"}))
      ->group(adapters);
  app.add_option("--zipf-exponent", flags.zipf_exponent, "How uneven")->check(finite_number(0, 10))->group(adapters);
  const std::string figures = "Figures";
  app.add_option("--goodput", flags.goodput, "Limits of a good request in ms, such as ttft:500 tpot:50 e2el:10000")
      ->group(figures);
  app.add_option("--plot", flags.plot, "SVG file of latency over the rates, and of tokens/s of a user and of a GPU")
      ->group(figures);
  app.add_option("--gpus", flags.gpus, "GPUs of the server, for that")->check(count_from(1))->group(figures);
  app.footer(
      "Examples:\n"
      "  lorikeet bench serve --request-rate 1 2 4 8 --plot load.svg\n"
      "  lorikeet bench serve --url http://localhost:8000 --max-concurrency 32 \\\n"
      "    --adapter kjv moby --adapter-mix zipf --goodput ttft:500 tpot:50\n"
      "  lorikeet bench serve --url https://HOST --cacert ca.pem --request-rate inf");
}

void add_latency(CLI::App& bench, int& exit_status) {
  auto [command, flags] = add_bench(bench, exit_status, "latency", check_engine_flags, bench_latency,
                                    "A batch of equal requests, again and again");
  add_lengths(*command, *flags, 32, 128);
  add_batch(*command, *flags, 8);
  add_iterations(*command, *flags, 2, 10);
  command
      ->add_option("--num-adapters", flags->changing_adapters,
                   "Distinct adapters of one more load, whose mix changes at every step (0: none)")
      ->check(count_from(0));
  add_lora_rank(*command, *flags);
  add_engine_flags(*command, *flags);
}

void add_throughput(CLI::App& bench, int& exit_status) {
  auto [command, flags] =
      add_bench(bench, exit_status, "throughput", check_engine_flags, bench_throughput, "Many requests, offline");
  add_lengths(*command, *flags, 512, 128);
  add_load(*command, *flags, 256);
  add_engine_flags(*command, *flags);
}

void add_prefill(CLI::App& bench, int& exit_status) {
  auto [command, flags] = add_bench(bench, exit_status, "prefill", check_engine_flags, bench_prefill,
                                    "Prompts of several lengths, one at a time");
  command
      ->add_option("--input-len", flags->input_lens,
                   "Tokens of the prompts; several values (default: 512, 2048 and 8192, as far as they fit)")
      ->check(count_from(1));
  add_iterations(*command, *flags, 1, 5);
  add_engine_flags(*command, *flags);
}

void add_lora(CLI::App& bench, int& exit_status) {
  auto [command, flags] = add_bench(bench, exit_status, "lora", check_engine_flags, bench_lora,
                                    "A batch over several numbers of distinct adapters, in turn");
  add_lengths(*command, *flags, 32, 128);
  add_batch(*command, *flags, 32);
  add_iterations(*command, *flags, 1, 5);
  flags->num_adapters = {0, 1, 8, 32};
  command->add_option("--num-adapters", flags->num_adapters, "Distinct adapters of each round; 0 is the base model")
      ->check(count_from(0));
  add_lora_rank(*command, *flags);
  add_engine_flags(*command, *flags);
}

void add_adapters(CLI::App& bench, int& exit_status) {
  auto [command, flags] = add_bench(bench, exit_status, "adapters", check_adapters_flags, bench_adapters,
                                    "Adapters on their way: by tier, loads a second, throughput over their number");
  add_lengths(*command, *flags, 64, 32);
  add_batch(*command, *flags, 32);
  flags->num_iters = 5;
  command->add_option("--num-iters", flags->num_iters, "Requests of each tier, and rounds of steps beside loads")
      ->check(count_from(1));
  flags->num_prompts = 128;
  command->add_option("--num-prompts", flags->num_prompts, "Requests over each number of adapters")
      ->check(count_from(1));
  flags->num_adapters = {0, 1, 8, 32};
  command
      ->add_option("--num-adapters", flags->num_adapters,
                   "Distinct adapters of each load, even and by Zipf's law; 0 is the base model")
      ->check(count_from(0));
  add_lora_rank(*command, *flags);
  command->add_option("--lora-targets", flags->lora_targets,
                      "Layers that the adapters are for, such as q_proj v_proj (default: all linear ones)");
  command->add_option("--zipf-exponent", flags->serve.zipf_exponent, "How uneven")->check(finite_number(0, 10));
  command
      ->add_option("--loads-per-second", flags->loads_per_second,
                   "Adapters that are brought into slots beside steps (0: one after the other), in rounds between "
                   "which none are; a first round is not counted")
      ->check(finite_number(0, 1e6));
  command->add_option("--plot", flags->plot, "SVG file of the throughput over the number of adapters");
  flags->server.max_loras = "8";  // fewer than adapters, so that there is something to load
  add_engine_flags(*command, *flags);
}

void add_serve(CLI::App& bench, int& exit_status) {
  auto [command, flags] =
      add_bench(bench, exit_status, "serve", check_serve_flags, bench_serve, "A running server under load");
  add_lengths(*command, *flags, 128, 128);
  add_load(*command, *flags, 256);
  add_serve_load(*command, flags->serve);
}

}  // namespace

void add_bench_command(CLI::App& app, int& exit_status) {
  CLI::App* bench = app.add_subcommand("bench", "Measures the engine beside what the machine gives at the most");
  bench->require_subcommand(1);
  bench->footer(
      "Examples:\n"
      "  lorikeet bench latency /models/qwen --batch-size 64 --input-len 512\n"
      "  lorikeet bench lora /models/qwen --batch-size 32 --num-adapters 0 1 32\n"
      "  lorikeet bench adapters /models/qwen --num-adapters 0 1 32 1000 --lora-targets q_proj v_proj\n"
      "  lorikeet bench serve --request-rate 1 2 4 8 --plot load.svg");
  add_latency(*bench, exit_status);
  add_throughput(*bench, exit_status);
  add_prefill(*bench, exit_status);
  add_lora(*bench, exit_status);
  add_adapters(*bench, exit_status);
  add_serve(*bench, exit_status);
}

}  // namespace lorikeet::launcher
