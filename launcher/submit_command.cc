#include <fmt/format.h>
#include <unistd.h>

#include <algorithm>
#include <charconv>
#include <iostream>
#include <iterator>
#include <memory>
#include <optional>
#include <utility>

#include "comm/client/limits.h"
#include "comm/client/request_json.h"
#include "kernels/base/console.h"
#include "launcher/answer_flags.h"
#include "launcher/commands.h"
#include "launcher/exit_status.h"
#include "launcher/flag_values.h"
#include "launcher/sampling_flags.h"
#include "launcher/server_connection.h"
#include "launcher/stream_printer.h"
#include "launcher/submit_requests.h"
#include "launcher/terminal.h"
#include "launcher/zmq_flags.h"

namespace lorikeet::launcher {
namespace {

constexpr const char* kStandardInput = "-";

struct SubmitFlags {
  ZmqFlags zmq;
  std::string encoding = "cereal";
  bool json = false;
  SubmitPlan plan;
};

Result<std::string> read_standard_input() {
  std::string text{std::istreambuf_iterator<char>(std::cin), std::istreambuf_iterator<char>()};
  if (text.size() > comm::kMaxBodyBytes) return fail("the standard input has more than {} bytes", comm::kMaxBodyBytes);
  if (!text.empty() && text.back() == '\n') text.pop_back();  // of the last line, as shells and editors add it
  if (text.empty()) return fail("the standard input is empty");
  return text;
}

// "-" stands for the standard input; so does no prompt at all where that is no terminal.
Result<void> find_prompts(SubmitPlan& plan) {
  if (plan.prompts.empty() && plan.token_prompts.empty()) {
    if (isatty(STDIN_FILENO) != 0) return fail("give a prompt, or - to read one from the standard input");
    plan.prompts.emplace_back(kStandardInput);
  }
  if (std::count(plan.prompts.begin(), plan.prompts.end(), kStandardInput) > 1) {
    return fail("the standard input can be one prompt only");
  }
  return check_prompts(plan);
}

Result<void> read_standard_input(SubmitPlan& plan) {
  for (std::string& prompt : plan.prompts) {
    if (prompt != kStandardInput) continue;
    auto text = read_standard_input();
    if (!text) return tl::unexpected(text.error());
    prompt = *std::move(text);
  }
  return {};
}

// Follows the answers of the requests that have been sent until each has its final one.
class Answers {
 public:
  Answers(comm::ServerClient& client, const std::vector<LabelledRequest>& requests, bool json)
      : client_(client),
        json_(json),
        printer_(stdout, labels_of(requests), style()),
        results_(requests.size()),
        ended_(requests.size()),
        has_text_(requests.size()) {
    for (const LabelledRequest& request : requests) lines_.emplace_back(comm::RequestLine{request.request, true});
  }

  // The number of requests that failed.
  Result<int> follow() {
    auto running = static_cast<int>(lines_.size());
    while (running > 0) {
      const auto message = client_.receive(std::chrono::milliseconds(1000));
      if (!message) continue;
      const auto ended = take(*message);
      if (!ended) return tl::unexpected(ended.error());
      running -= *ended;
    }
    return failed_;
  }

 private:
  static std::vector<std::string> labels_of(const std::vector<LabelledRequest>& requests) {
    std::vector<std::string> labels;
    for (const LabelledRequest& request : requests) labels.push_back(request.label);
    return labels;
  }

  // Where the output goes to a file or another program, it is the answers and nothing beside them.
  static StreamPrinter::Style style() {
    const Terminal terminal = terminal_of(STDOUT_FILENO);
    return {terminal, isatty(STDOUT_FILENO) != 0};
  }

  // How many requests the message ended.
  Result<int> take(const comm::ServerMessage& message) {
    if (const auto* delta = std::get_if<comm::Delta>(&message)) {
      const auto i = index_of(delta->id);
      if (!i) return 0;
      lines_[*i].add(*delta);
      if (json_) return 0;
      comm::Delta shown_piece = *delta;
      shown_piece.text = text_of(*delta);
      if (!shown_piece.text.empty()) has_text_[*i] = true;
      if (auto shown = printer_.delta(*i, shown_piece); !shown) return tl::unexpected(shown.error());
      return 0;
    }
    if (const auto* done = std::get_if<comm::Done>(&message)) {
      const auto i = index_of(done->id);
      if (!i || ended_[*i]) return 0;
      if (auto shown = show(*i, *done); !shown) return tl::unexpected(shown.error());
      return 1;
    }
    const auto* failure = std::get_if<comm::Failure>(&message);
    if (failure == nullptr) return 0;
    const auto i = index_of(failure->id);
    if (!i && failure->code != "server_lost") return fail("{}", failure->message);
    int ended = 0;  // by a lost server: whatever runs
    for (size_t k = i.value_or(0); k < (i ? *i + 1 : lines_.size()); ++k) {
      if (ended_[k]) continue;
      if (auto shown = show(k, *failure); !shown) return tl::unexpected(shown.error());
      ++ended;
    }
    return ended;
  }

  Result<void> show(size_t i, const comm::Done& done) {
    ended_[i] = true;
    if (json_) return result(i, lines_[i].finish(done));
    if (auto ok = printer_.end(
            i, fmt::format("[{}: {} tokens, seed {}]", done.finish_reason, done.usage.completion_tokens, done.seed));
        !ok || has_text_[i]) {
      return ok;
    }
    const int32_t tokens = done.usage.completion_tokens;
    const bool ended_at_once = tokens == 0 || (tokens == 1 && done.finish_reason == "stop");
    if (ended_at_once) return {};
    printer_.remark(i, "lorikeet submit",
                    fmt::format("{} {} without text (--json shows the ids)", tokens, tokens == 1 ? "token" : "tokens"));
    return {};
  }

  Result<void> show(size_t i, const comm::Failure& failure) {
    ended_[i] = true;
    ++failed_;
    if (json_) return result(i, lines_[i].finish(failure));
    return printer_.fail(i, "lorikeet submit", fmt::format("{} [{}]", failure.message, failure.code));
  }

  // The lines are written in the order of the requests.
  Result<void> result(size_t i, std::string line) {
    results_[i] = std::move(line);
    for (; next_ < results_.size() && results_[next_]; ++next_) {
      if (auto ok = write_text(stdout, *results_[next_] + "\n"); !ok) return ok;
    }
    return {};
  }

  // Everything that there is of a piece, in the order in which a model writes it.
  static std::string text_of(const comm::Delta& delta) {
    std::string text = delta.reasoning.value_or("") + delta.text;
    for (const comm::ToolCallDelta& call : delta.tool_calls) {
      if (call.name) text += fmt::format("\n{} ", *call.name);
      text += call.arguments.value_or("");
    }
    return text;
  }

  // The ids are ours (make_requests): the index of the request in decimal. What the server says is checked all the
  // same.
  std::optional<size_t> index_of(const std::string& id) const {
    size_t index = 0;
    const auto [end, error] = std::from_chars(id.data(), id.data() + id.size(), index);
    if (error != std::errc() || end != id.data() + id.size() || index >= lines_.size()) return std::nullopt;
    return index;
  }

  comm::ServerClient& client_;
  bool json_;
  StreamPrinter printer_;
  std::vector<comm::ResultLine> lines_;              // of each request: what has come of its answer
  std::vector<std::optional<std::string>> results_;  // in JSON: what has ended
  size_t next_ = 0;                                  // of them: the first that is not written
  std::vector<bool> ended_, has_text_;               // of each request
  int failed_ = 0;
};

// The exit status.
Result<int> submit(SubmitFlags& flags) {
  const auto wrong = [](const Error& error) { return report_failure("submit", error, kWrongCommandLine); };
  if (auto ok = find_prompts(flags.plan); !ok) return wrong(ok.error());
  if (auto ok = read_standard_input(flags.plan); !ok) return tl::unexpected(ok.error());
  const auto requests = make_requests(flags.plan);
  if (!requests) return wrong(requests.error());
  auto client = connect_to_server(flags.zmq, flags.encoding == "json" ? comm::Encoding::json : comm::Encoding::cereal);
  if (!client) return tl::unexpected(client.error());
  for (const LabelledRequest& request : *requests) {
    if (auto sent = (*client)->send(request.request); !sent) return tl::unexpected(sent.error());
  }
  const auto failed = Answers(**client, *requests, flags.json).follow();
  if (!failed) return failed;
  return *failed == 0 ? 0 : 1;
}

}  // namespace

void add_submit_command(CLI::App& app, int& exit_status) {
  auto flags = std::make_shared<SubmitFlags>();
  SubmitPlan& plan = flags->plan;
  CLI::App* command = app.add_subcommand("submit", "Sends prompts to a running server and streams the answers");
  command->add_option("PROMPT", plan.prompts, "The prompts, all sent at once; - is the standard input");
  add_token_ids(
      *command, "--prompt-token-ids",
      [&plan](std::vector<int32_t> ids) { plan.token_prompts.push_back(std::move(ids)); },
      "A prompt as token ids; may be repeated, and comes behind those of text");
  add_zmq_flags(*command, flags->zmq);
  command
      ->add_option("--adapter", plan.adapters,
                   "Adapter of each prompt, in their order; may be repeated; - is the base model; one is for all")
      ->allow_extra_args(false);
  command->add_flag("--chat", plan.chat, "Send each prompt as a user's message, through the chat template");
  command->add_option("--system", plan.system, "A system message before each prompt; implies --chat");
  command->add_option("--n", plan.answers, "Answers to each prompt, from seeds one after the other")
      ->check(CLI::Range(1, 128))
      ->capture_default_str();
  command->add_flag("--json", flags->json,
                    "Print a line of JSON for each answer: text, token ids, log-probabilities, usage, seed");
  command
      ->add_option("--logprobs", plan.sampling.logprobs,
                   "Show every token's log-probability and those of the N best beside it")
      ->check(CLI::Range(0, 20));
  command->add_option("--encoding", flags->encoding, "How messages are encoded")
      ->check(CLI::IsMember({"cereal", "json"}))
      ->capture_default_str();
  add_sampling_flags(*command, plan.sampling);
  add_answer_flags(*command, plan.sampling);
  command->footer(
      "Examples:\n"
      "  lorikeet submit --adapter kjv \"And it came to pass\"\n"
      "  lorikeet submit --adapter kjv --adapter moby --adapter - \"The sea was\"\n"
      "  lorikeet submit --prompt-token-ids 12,7,301 --stop-token-ids 2 --json\n"
      "  git diff | lorikeet submit --system \"Write a commit message.\" --json -");
  command->callback([flags, &exit_status] { exit_status = exit_status_of("submit", submit(*flags)); });
}

}  // namespace lorikeet::launcher
