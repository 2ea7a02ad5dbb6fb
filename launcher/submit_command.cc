#include <fmt/format.h>

#include <charconv>
#include <memory>
#include <optional>

#include "comm/client/zmq_client.h"
#include "kernels/base/console.h"
#include "launcher/answer_flags.h"
#include "launcher/commands.h"
#include "launcher/flag_values.h"
#include "launcher/stream_printer.h"
#include "launcher/zmq_address.h"

namespace lorikeet::launcher {
namespace {

constexpr const char* kBaseModel = "-";

struct SubmitFlags {
  std::string zmq = "tcp://127.0.0.1:5555";
  std::string encoding = "cereal";
  std::vector<std::string> prompts;
  std::vector<std::string> adapters;
  bool chat = false;
  comm::GenerateRequest sampling;  // everything but id, prompt and adapter
};

// One request per (prompt, adapter) pair: as many adapters as prompts, or one of either for all of the other.
Result<std::vector<comm::GenerateRequest>> make_requests(const SubmitFlags& flags) {
  const size_t prompts = flags.prompts.size();
  const size_t adapters = std::max<size_t>(flags.adapters.size(), 1);
  if (prompts != adapters && prompts != 1 && adapters != 1) {
    return fail("{} prompts and {} adapters: give as many of one as of the other, or one of either", prompts, adapters);
  }
  std::vector<comm::GenerateRequest> requests;
  for (size_t i = 0; i < std::max(prompts, adapters); ++i) {
    comm::GenerateRequest request = flags.sampling;
    request.id = std::to_string(i);
    const std::string& prompt = flags.prompts[prompts == 1 ? 0 : i];
    if (flags.chat) {
      request.messages = {{"user", prompt}};
    } else {
      request.prompt = prompt;
    }
    if (!flags.adapters.empty()) {
      const std::string& adapter = flags.adapters[adapters == 1 ? 0 : i];
      if (adapter != kBaseModel) request.adapter = adapter;
    }
    requests.push_back(std::move(request));
  }
  return requests;
}

// Follows the answers of the requests that have been sent until each has its final one.
class Answers {
 public:
  Answers(comm::ZmqClient& client, std::vector<std::string> labels)
      : client_(client), size_(labels.size()), printer_(stdout, std::move(labels)) {}

  // The number of requests that failed.
  Result<int> follow(size_t running) {
    while (running > 0) {
      auto message = client_.receive(std::chrono::milliseconds(1000));
      if (!message) continue;
      Result<void> shown;
      if (const auto* delta = std::get_if<comm::Delta>(&*message)) {
        if (const auto i = index_of(delta->id)) shown = printer_.text(*i, text_of(*delta));
      } else if (const auto* done = std::get_if<comm::Done>(&*message)) {
        const auto i = index_of(done->id);
        if (!i) continue;
        shown = printer_.end(*i, fmt::format("[{}: {} tokens, seed {}]", done->finish_reason,
                                             done->usage.completion_tokens, done->seed));
        --running;
      } else if (const auto* failure = std::get_if<comm::Failure>(&*message)) {
        const auto i = index_of(failure->id);
        if (!i) return fail("{}", failure->message);
        shown = printer_.end(*i, fmt::format("[{}: {}]", failure->code, failure->message));
        ++failed_;
        --running;
      }
      if (!shown) return tl::unexpected(shown.error());
    }
    return failed_;
  }

 private:
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
    if (error != std::errc() || end != id.data() + id.size() || index >= size_) return std::nullopt;
    return index;
  }

  comm::ZmqClient& client_;
  size_t size_;
  StreamPrinter printer_;
  int failed_ = 0;
};

Result<int> submit(const SubmitFlags& flags) {
  auto requests = make_requests(flags);
  if (!requests) return tl::unexpected(requests.error());
  auto client =
      comm::ZmqClient::connect(flags.zmq, flags.encoding == "json" ? comm::Encoding::json : comm::Encoding::cereal);
  if (!client) return tl::unexpected(client.error());
  std::vector<std::string> labels;
  for (const comm::GenerateRequest& request : *requests) labels.push_back(request.adapter.value_or("(base model)"));
  for (comm::GenerateRequest& request : *requests) {
    if (auto sent = (*client)->send(std::move(request)); !sent) return tl::unexpected(sent.error());
  }
  return Answers(**client, std::move(labels)).follow(requests->size());
}

void add_sampling_flags(CLI::App& app, comm::GenerateRequest& request) {
  const std::string group = "Sampling (the model's defaults where a flag is absent)";
  app.add_option("--max-tokens", request.max_tokens, "Tokens to generate at the most")->group(group);
  app.add_option("--temperature", request.temperature, "0 is greedy")->group(group);
  app.add_option("--top-p", request.top_p, "Smallest set of tokens with this much probability")->group(group);
  app.add_option("--top-k", request.top_k, "The k best tokens; 0 is all")->group(group);
  app.add_option("--min-p", request.min_p, "Least probability, relative to the best token's")->group(group);
  app.add_option("--repetition-penalty", request.repetition_penalty, "Divides the logits of tokens seen; 1 is none")
      ->group(group);
  app.add_option("--presence-penalty", request.presence_penalty, "Subtracted once from tokens generated")->group(group);
  app.add_option("--frequency-penalty", request.frequency_penalty, "Subtracted as often as a token was generated")
      ->group(group);
  app.add_option("--seed", request.seed, "Of the draws; the answer reports the one used")
      ->check(whole_number())
      ->group(group);
  app.add_option("--stop", request.stop, "A string that ends the answer; may be repeated")
      ->allow_extra_args(false)
      ->group(group);
  app.add_flag("--ignore-eos", request.ignore_eos, "Go on past the end-of-text token")->group(group);
}

}  // namespace

void add_submit_command(CLI::App& app, int& exit_status) {
  auto flags = std::make_shared<SubmitFlags>();
  CLI::App* command = app.add_subcommand("submit", "Sends prompts to a running server and streams the answers");
  command->add_option("prompt", flags->prompts, "The prompts, all sent at once")->required();
  command->add_option("--zmq", flags->zmq, "Address of the server")->check(zmq_address())->capture_default_str();
  command
      ->add_option("--adapter", flags->adapters,
                   "Adapter of each prompt, in their order; - is the base model; one is for all")
      ->allow_extra_args(false);
  command->add_flag("--chat", flags->chat, "Send each prompt as a user's message, through the chat template");
  command->add_option("--encoding", flags->encoding, "How messages are encoded")
      ->check(CLI::IsMember({"cereal", "json"}))
      ->capture_default_str();
  add_sampling_flags(*command, flags->sampling);
  add_answer_flags(*command, flags->sampling);
  command->callback([flags, &exit_status] {
    const auto failed = submit(*flags);
    if (!failed) say("lorikeet submit: {}", failed.error().message);
    exit_status = failed && *failed == 0 ? 0 : 1;
  });
}

}  // namespace lorikeet::launcher
