#include <fmt/format.h>

#include <algorithm>
#include <chrono>
#include <memory>
#include <optional>
#include <span>

#include "kernels/base/console.h"
#include "launcher/adapter_warnings.h"
#include "launcher/batch_output.h"
#include "launcher/batch_runner.h"
#include "launcher/commands.h"
#include "launcher/exit_status.h"
#include "launcher/http_flags.h"
#include "launcher/local_server.h"
#include "launcher/server_flags.h"
#include "launcher/units.h"
#include "model/tokenizer/tokenizer.h"

namespace lorikeet::launcher {
namespace {

struct BatchFlags {
  ServerFlags server;
  std::string input;
  std::string output;
  bool resume = false;
};

// Its tokenizer is read when a line needs it first.
BatchModel model_of(const actors::ServerOptions& options) {
  using Tokenizer = std::shared_ptr<const model::Tokenizer>;
  const auto tokenizer = [loaded = std::make_shared<std::optional<Tokenizer>>(), dir = options.model]() -> Tokenizer {
    if (!*loaded) *loaded = model::Tokenizer::is_in(dir) ? model::Tokenizer::load(dir).value_or(nullptr) : nullptr;
    return **loaded;
  };
  BatchModel model;
  model.names = {options.served_model_name, options.more_model_names};
  model.token_bytes = [tokenizer](int32_t id) {
    const auto loaded = tokenizer();
    return loaded ? loaded->bytes_of(id) : std::string_view();
  };
  model.decode = [tokenizer](std::span<const int32_t> ids) {
    const auto loaded = tokenizer();
    return loaded ? loaded->decode(ids, false) : std::string();
  };
  model.now = [] {
    return int64_t{
        std::chrono::duration_cast<std::chrono::seconds>(std::chrono::system_clock::now().time_since_epoch()).count()};
  };
  return model;
}

// The exit status: 0, or 128 and the signal that interrupted it.
Result<int> batch(const BatchFlags& flags) {
  auto options = resolve(flags.server);
  if (!options) return report_failure("batch", options.error(), kWrongCommandLine);
  auto reader = LineReader::open(flags.input);
  if (!reader) return tl::unexpected(reader.error());
  if (auto ok = check_distinct(flags.input, flags.output); !ok) return tl::unexpected(ok.error());
  int64_t lines = flags.input == "-" ? 0 : count_lines(flags.input);  // that are to be answered; 0: not known
  AnsweredLines answered;
  if (flags.resume) {
    if (flags.output == "-") return fail("--resume needs a file as --output");
    auto earlier = AnsweredLines::take_over(flags.output);
    if (!earlier) return tl::unexpected(earlier.error());
    answered = *std::move(earlier);
    say("{} lines are answered in {}", answered.size(), flags.output);
    lines = std::max<int64_t>(0, lines - answered.size());
  }
  for (const std::string& warning : adapter_warnings(*options).warnings) say("warning: {}", warning);
  auto writer = LineFileWriter::open(flags.output, flags.resume);
  if (!writer) return tl::unexpected(writer.error());
  auto server = LocalServer::start("lorikeet batch", *options);
  if (!server) return tl::unexpected(server.error());
  const auto begin = std::chrono::steady_clock::now();
  const size_t window = static_cast<size_t>(std::min(options->max_num_queued_reqs, 1024));
  BatchRunner runner((*server)->client(), *reader, *writer, window, std::move(answered), model_of(*options));
  const auto give_up = [&] { return (*server)->stopped(); };
  const auto summary = runner.run(give_up, [&](const BatchRunner::Summary& now) {
    const double seconds = std::chrono::duration<double>(std::chrono::steady_clock::now() - begin).count();
    (*server)->progress().show({"answering", now.lines, lines, "requests",
                                rate_text(static_cast<double>(now.streamed_tokens) / seconds) + " tokens/s"});
  });
  (*server)->progress().end();
  if (const int signal = (*server)->signal(); signal != 0 && !summary) {
    say("lorikeet batch: interrupted; --resume does the rest");
    return 128 + signal;
  }
  if (!summary) return fail("{}; --resume does the rest", summary.error().message);
  const double seconds = std::chrono::duration<double>(std::chrono::steady_clock::now() - begin).count();
  if (summary->failed > 0 && flags.output != "-") say("the results of those that failed say why: {}", flags.output);
  say("{} {}, {} failed, {} prompt and {} generated tokens in {:.2f} s", summary->lines,
      summary->lines == 1 ? "line" : "lines", summary->failed, summary->prompt_tokens, summary->completion_tokens,
      seconds);
  if (auto ok = writer->close(); !ok) return tl::unexpected(ok.error());
  return 0;
}

}  // namespace

void add_batch_command(CLI::App& app, int& exit_status) {
  auto flags = std::make_shared<BatchFlags>();
  CLI::App* command =
      app.add_subcommand("batch", "Answers a file of requests offline, through the same actors as serve");
  add_server_flags(*command, flags->server);
  refuse_http_flags(*command, flags->server.foreign);
  command->remove_option(command->get_option("--zmq"));
  command
      ->add_option("--input,-i", flags->input,
                   "Requests, one JSON object per line, ours or those of OpenAI's batches; - is the standard input")
      ->required();
  command->add_option("--output,-o", flags->output, "Results, one JSON object per line; - is the standard output")
      ->required();
  command->add_flag("--resume", flags->resume,
                    "Go on with the output of a run that was interrupted: lines whose id it answers are skipped");
  command->footer(
      "A line is a request: {\"id\": 1, \"prompt\": \"It was\", \"adapter\": \"kjv\"}\n"
      "\n"
      "A line that fails has a result that says why, and the last line of standard\n"
      "error counts those. Exit status: 0, every line has its result, of an answer or\n"
      "of a failure, as with `vllm run-batch`; 1, not every line has one, and --resume\n"
      "does the rest.\n"
      "\n"
      "Examples:\n"
      "  lorikeet batch /models/qwen --lora-modules kjv=/adapters/kjv \\\n"
      "    --input requests.jsonl --output results.jsonl\n"
      "  lorikeet batch --config serve.yaml -i requests.jsonl -o results.jsonl --resume");
  command->callback([flags, &exit_status] { exit_status = exit_status_of("batch", batch(*flags)); });
}

}  // namespace lorikeet::launcher
