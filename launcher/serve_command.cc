#include <fmt/format.h>
#include <unistd.h>

#include <memory>
#include <string>
#include <utility>

#include "kernels/base/console.h"
#include "launcher/access_flags.h"
#include "launcher/adapter_warnings.h"
#include "launcher/cluster_flags.h"
#include "launcher/commands.h"
#include "launcher/exit_status.h"
#include "launcher/http_flags.h"
#include "launcher/json_stderr.h"
#include "launcher/served_summary.h"
#include "launcher/server_flags.h"
#include "launcher/server_progress.h"
#include "launcher/stop_signals.h"
#include "model/inspect/inspect.h"
#include "model/tokenizer/tokenizer.h"

namespace lorikeet::launcher {
namespace {

// Where the ranks would be.
int show_placement(const actors::ServerOptions& options, const actors::ClusterOptions& cluster) {
  const auto table = actors::dry_run_placement(options, cluster, [](const std::string& line) { say("{}", line); });
  if (!table) return report_failure("serve", table.error());
  say_line(STDOUT_FILENO, *table);
  return 0;
}

// `warning`: of its doors; empty: none.
int serve(const ServerFlags& flags, const ClusterFlags& cluster_flags, const std::string& warning) {
  StopSignals signals;
  auto options = resolve(flags);
  if (!options) return report_failure("serve", options.error(), kWrongCommandLine);
  const auto cluster = resolve(cluster_flags, options->device);
  if (!cluster) return report_failure("serve", cluster.error(), kWrongCommandLine);
  if (cluster->nnodes > 1) {
    const auto complete = check_cluster_dir(cluster->directory);
    if (!complete) return report_failure("serve", complete.error(), kWrongCommandLine);
  }
  std::unique_ptr<JsonStderr> json;
  if (options->log.json) {
    auto begun = JsonStderr::begin();
    if (!begun) return report_failure("serve", begun.error());
    json = *std::move(begun);
  }
  if (cluster_flags.dry_run) return show_placement(*options, *cluster);
  for (const std::string& note : flags.foreign.harmless) say("note: {}", note);
  if (!warning.empty()) say("warning: {}", warning);
  RefusedAdapters refused = adapter_warnings(*options);
  for (const std::string& sentence : refused.warnings) say("warning: {}", sentence);
  const bool has_tokenizer = model::Tokenizer::is_in(options->model);
  if (!has_tokenizer) {
    say("note: {} has no tokenizer: requests carry prompt_token_ids, and answers have token ids but no text",
        options->model);
  }
  if (const std::string cost = model::eight_bit_cost(options->model); !cost.empty()) say("note: 8 bits: {}", cost);
  const auto progress = std::make_shared<ServerProgress>("lorikeet serve", options->tensor_parallel_size);
  actors::ServerCallbacks callbacks = ServerProgress::callbacks(progress);
  callbacks.on_ready = [progress, &options, has_tokenizer,
                        names = std::move(refused.names)](const actors::ServerReady& ready) {
    progress->line().end();
    const std::string line = fmt::format("serving {} at {}", options->served_model_name, ready.zmq_address);
    say_line(STDOUT_FILENO, line);
    progress->line().say(
        options->log.json ? line : served_summary(*options, ready, terminal_of(STDERR_FILENO), has_tokenizer, names));
  };
  auto server = actors::Server::start(*options, std::move(callbacks), *cluster);
  if (!server) return report_failure("serve", server.error());
  signals.route_to(server->get());
  const int status = (*server)->wait();
  signals.route_to(nullptr);
  return status == 0 && signals.insisted() ? 128 + signals.received() : status;  // whether or not anything still ran
}

}  // namespace

void add_serve_command(CLI::App& app, int& exit_status) {
  auto flags = std::make_shared<ServerFlags>();
  CLI::App* command =
      app.add_subcommand("serve", "Serves a model over HTTP and ZeroMQ until SIGINT, SIGTERM or SIGHUP");
  auto http = std::make_shared<HttpFlags>();
  add_server_flags(*command, *flags);
  add_http_flags(*command, *http);
  auto access = std::make_shared<AccessFlags>();
  add_access_flags(*command, *access);
  add_log_flags(*command, flags->options.log);
  auto cluster = std::make_shared<ClusterFlags>();
  add_cluster_flags(*command, *cluster);
  auto drain_seconds = std::make_shared<double>(30);
  add_drain_flag(*command, *drain_seconds);
  command->footer(
      "Examples:\n"
      "  lorikeet serve /models/qwen --lora-modules kjv=/lora/kjv moby=/lora/moby\n"
      "  lorikeet serve Qwen/Qwen2.5-14B-Instruct-GPTQ-Int4 --tensor-parallel-size 2\n"
      "  lorikeet serve --config serve.yaml --host 0.0.0.0 --api-key-file keys.txt");
  command->callback([flags, http, access, cluster, drain_seconds, &exit_status] {
    const auto take = [&exit_status](auto resolved, auto& to) {
      if (resolved) {
        to = *std::move(resolved);
        return true;
      }
      exit_status = report_failure("serve", resolved.error(), kWrongCommandLine);
      return false;
    };
    if (!take(resolve(*http), flags->options.http)) return;
    const std::string host = http->no_http ? "" : http->options.host;
    if (!take(resolve(*access, host, flags->options.zmq_address), flags->options.access)) return;
    flags->options.drain_timeout_ms = static_cast<int32_t>(*drain_seconds * 1000);
    flags->computes_alone = cluster->options.nnodes == 1;
    flags->computes_here = flags->computes_alone || cluster->devices != "none";
    exit_status = serve(*flags, *cluster, way_round_keys(*access, flags->options.access, flags->options.zmq_address));
  });
}

}  // namespace lorikeet::launcher
