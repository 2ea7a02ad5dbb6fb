#include <fmt/format.h>

#include <algorithm>
#include <chrono>
#include <memory>

#include "launcher/batch_runner.h"
#include "launcher/commands.h"
#include "launcher/local_server.h"
#include "launcher/server_flags.h"

namespace lorikeet::launcher {
namespace {

struct BatchFlags {
  ServerFlags server;
  std::string input;
  std::string output;
};

Result<void> batch(const BatchFlags& flags) {
  auto options = resolve(flags.server);
  if (!options) return tl::unexpected(options.error());
  auto reader = LineReader::open(flags.input);
  if (!reader) return tl::unexpected(reader.error());
  auto writer = LineWriter::open(flags.output);
  if (!writer) return tl::unexpected(writer.error());
  auto server = LocalServer::start(*options);
  if (!server) return tl::unexpected(server.error());
  const auto begin = std::chrono::steady_clock::now();
  const size_t window = static_cast<size_t>(std::min(options->max_num_queued_reqs, 1024));
  BatchRunner runner((*server)->client(), *reader, *writer, window);
  const auto summary = runner.run([&] { return (*server)->stopped(); });
  if (!summary) return tl::unexpected(summary.error());
  const double seconds = std::chrono::duration<double>(std::chrono::steady_clock::now() - begin).count();
  fmt::print(stderr, "{} lines, {} failed, {} prompt and {} generated tokens in {:.2f} s\n", summary->lines,
             summary->failed, summary->prompt_tokens, summary->completion_tokens, seconds);
  return writer->close();
}

}  // namespace

void add_batch_command(CLI::App& app, int& exit_status) {
  auto flags = std::make_shared<BatchFlags>();
  CLI::App* command =
      app.add_subcommand("batch", "Answers a file of requests offline, through the same actors as serve");
  add_server_flags(*command, flags->server);
  command->remove_option(command->get_option("--zmq"));
  command->add_option("--input,-i", flags->input, "Requests, one JSON object per line; - is the standard input")
      ->required();
  command->add_option("--output,-o", flags->output, "Results, one JSON object per line; - is the standard output")
      ->required();
  command->callback([flags, &exit_status] {
    if (auto ok = batch(*flags); !ok) {
      fmt::print(stderr, "lorikeet batch: {}\n", ok.error().message);
      exit_status = 1;
    }
  });
}

}  // namespace lorikeet::launcher
