#include <fmt/format.h>
#include <fmt/ranges.h>
#include <signal.h>
#include <unistd.h>

#include <algorithm>
#include <memory>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "comm/client/adapter_request.h"
#include "comm/client/zmq_client.h"
#include "kernels/base/console.h"
#include "kernels/base/nearest_word.h"
#include "launcher/chat_session.h"
#include "launcher/commands.h"
#include "launcher/exit_status.h"
#include "launcher/line_editor.h"
#include "launcher/sampling_flags.h"
#include "launcher/server_connection.h"
#include "launcher/status_query.h"
#include "launcher/submit_requests.h"
#include "launcher/terminal.h"
#include "launcher/url_flags.h"
#include "launcher/zmq_flags.h"

namespace lorikeet::launcher {
namespace {

constexpr std::chrono::seconds kNamesPatience{10};

struct ChatFlags {
  ZmqFlags zmq;
  UrlFlags http;  // with a URL: over HTTP, with the key of `zmq`
  std::string adapter;
  std::optional<std::string> system;
  comm::GenerateRequest sampling;
};

// Ctrl-C while an answer streams: it ends the answer. While a line is typed it drops the line (line_editor.h).
volatile sig_atomic_t interrupted = 0;

class InterruptWatch {
 public:
  InterruptWatch() {
    interrupted = 0;
    struct sigaction watch = {};
    watch.sa_handler = [](int) { interrupted = 1; };
    sigaction(SIGINT, &watch, &before_);
  }
  ~InterruptWatch() { sigaction(SIGINT, &before_, nullptr); }
  InterruptWatch(const InterruptWatch&) = delete;
  InterruptWatch& operator=(const InterruptWatch&) = delete;

 private:
  struct sigaction before_ = {};
};

class Chat {
 public:
  // models: names that the server answers to; empty: it is asked when they are wanted.
  Chat(comm::ServerClient& client, const ChatFlags& flags, std::vector<std::string> models = {})
      : client_(client),
        models_(std::move(models)),
        terminal_(terminal_of(STDOUT_FILENO)),
        typed_(isatty(STDIN_FILENO) != 0),
        session_(flags.sampling, flags.adapter, flags.system) {}

  Result<void> run() {
    if (auto ok = check_adapter(); !ok) return ok;
    if (typed_) say("/help lists what there is beside talking; Ctrl-D ends it");
    while (true) {
      const auto line = read();
      if (!line) return typed_ ? write_text(stdout, "\n") : Result<void>();
      const ChatOrder order = session_.take(*line);
      if (!order.say.empty()) say("{}", order.say);
      if (order.kind == ChatOrder::Kind::quit) return {};
      Result<void> done;
      if (order.kind == ChatOrder::Kind::adapter) done = change_adapter(order.argument);
      if (order.kind == ChatOrder::Kind::send || order.kind == ChatOrder::Kind::retry) done = answer();
      if (!done) return done;
    }
  }

 private:
  // A line that ends with a backslash goes on in the next one.
  std::optional<std::string> read() {
    const std::string prompt = (session_.adapter().empty() ? "" : session_.adapter()) + "> ";
    auto text = editor_.read(prompt);
    while (text && !text->empty() && text->back() == '\\') {
      const auto more = editor_.read(std::string(prompt.size() - 2, ' ') + ". ");
      if (!more) break;
      text->back() = '\n';
      *text += *more;
    }
    return text;
  }

  Result<std::vector<std::string>> adapters() {
    if (!models_.empty()) return models_;
    const auto answer = ask_status(client_, kNamesPatience);
    if (!answer) return tl::unexpected(answer.error());
    const auto status = read_status(answer->json);
    if (!status) return tl::unexpected(status.error());
    all_listed_ = status->adapters.unlisted == 0;
    std::vector<std::string> names;
    for (const actors::AdapterStatus& adapter : status->adapters.adapters) {
      if (!adapter.name.empty()) names.push_back(adapter.name);
    }
    return names;
  }

  // Before anybody says a word. Where the server does not tell its names, its answers do; over HTTP it may answer to more
  // than it lists, such as BASE:ADAPTER.
  Result<void> check_adapter() {
    const std::string& name = session_.adapter();
    if (name.empty()) return {};
    const auto names = adapters();
    if (!names || !all_listed_ || std::find(names->begin(), names->end(), name) != names->end()) return {};
    if (models_.empty()) return fail("{}", not_served(name, *names));
    say("warning: /v1/models does not list {}; {}", name, served(name, *names));
    return {};
  }

  static std::string not_served(const std::string& name, const std::vector<std::string>& names) {
    return (name.empty() ? "" : fmt::format("there is no adapter {}; ", name)) + served(name, names);
  }

  static std::string served(const std::string& name, const std::vector<std::string>& names) {
    const std::string guess = name.empty() ? "" : nearest_word(name.substr(0, 64), names);
    return fmt::format("{}served: {}", guess.empty() ? "" : fmt::format("did you mean {}? ", guess),
                       names.empty() ? "none" : fmt::format("{}", fmt::join(names, ", ")));
  }

  Result<void> change_adapter(const std::string& name) {
    const auto names = adapters();
    if (!names) return tl::unexpected(names.error());
    if (name == comm::kBaseModel || std::find(names->begin(), names->end(), name) != names->end()) {
      session_.use_adapter(name == comm::kBaseModel ? "" : name);
      say("{} answers from now on", name == comm::kBaseModel ? "the base model" : name);
      return {};
    }
    say("{}", not_served(name, *names));
    return {};
  }

  Result<void> answer() {
    comm::GenerateRequest request = session_.request();
    request.id = std::to_string(next_id_++);
    const InterruptWatch watch;
    if (auto sent = client_.send(request); !sent) return sent;
    std::string text;
    bool cancelled = false;
    while (true) {
      if (interrupted != 0 && !std::exchange(cancelled, true)) {
        if (auto sent = client_.send(comm::Cancel{request.id}); !sent) return sent;
      }
      const auto message = client_.receive(std::chrono::milliseconds(100));
      if (!message) continue;
      if (const auto* delta = std::get_if<comm::Delta>(&*message); delta != nullptr && delta->id == request.id) {
        text += delta->text;
        if (auto ok = show(*delta); !ok) return ok;
      } else if (const auto* done = std::get_if<comm::Done>(&*message); done != nullptr && done->id == request.id) {
        return end(std::move(text), note_of(*done));
      } else if (const auto* failure = std::get_if<comm::Failure>(&*message)) {
        if (!failure->id.empty() && failure->id != request.id) continue;
        session_.refused();
        if (failure->id.empty()) return fail("{}", failure->message);
        if (!typed_) return fail("{} [{}]", failure->message, failure->code);  // nobody is there to do better
        say("lorikeet chat: {} [{}]", failure->message, failure->code);
        return {};
      }
    }
  }

  // What a model thinks before it answers stands on lines of its own, and is no part of the talk.
  Result<void> show(const comm::Delta& delta) {
    std::string shown;
    if (delta.reasoning && !delta.reasoning->empty()) {
      shown = coloured(terminal_, "2", *delta.reasoning);
      thinks_ = true;
    }
    if (!delta.text.empty() && std::exchange(thinks_, false)) shown += '\n';
    return write_text(stdout, shown + delta.text);
  }

  static std::string note_of(const comm::Done& done) {
    if (done.finish_reason == "length") {
      return fmt::format("[ended after {} tokens: --max-tokens, or the context is full]", done.usage.completion_tokens);
    }
    return done.finish_reason == "abort" ? "[stopped]" : "";
  }

  Result<void> end(std::string text, const std::string& note) {
    if (text.empty() || text.back() != '\n') {
      if (auto ok = write_text(stdout, "\n"); !ok) return ok;
    }
    if (!note.empty()) say("{}", coloured(terminal_, "2", note));
    session_.answered(std::move(text));
    return {};
  }

  comm::ServerClient& client_;
  const std::vector<std::string> models_;
  const Terminal terminal_;
  const bool typed_;
  ChatSession session_;
  LineEditor editor_;
  int64_t next_id_ = 0;
  bool all_listed_ = true;  // the server has told all names
  bool thinks_ = false;     // what was shown last is what the model thinks
};

Result<void> chat_over_http(const ChatFlags& flags) {
  auto client = connect_over_http(flags.http, flags.zmq.api_key, "");
  if (!client) return tl::unexpected(client.error());
  return Chat(**client, flags, (*client)->models()).run();
}

Result<void> chat(const ChatFlags& flags) {
  if (!flags.http.url.empty()) return chat_over_http(flags);
  auto client = connect_to_server(flags.zmq);
  if (!client) return tl::unexpected(client.error());
  return Chat(**client, flags).run();
}

}  // namespace

void add_chat_command(CLI::App& app, int& exit_status) {
  auto flags = std::make_shared<ChatFlags>();
  CLI::App* command = app.add_subcommand("chat", "Talks with a running server in the terminal");
  add_zmq_flags(*command, flags->zmq);
  add_url_flags(*command, flags->http);
  command->add_option("--adapter", flags->adapter, "Adapter that answers (default: the base model)");
  command->add_option("--system", flags->system, "A system message before the talk");
  add_sampling_flags(*command, flags->sampling);
  command->footer(
      "In the talk, /adapter NAME lets another adapter answer, /help lists the rest.\n"
      "Ctrl-C ends an answer and not the program.\n"
      "\n"
      "Examples:\n"
      "  lorikeet chat --adapter kjv --system \"Be brief.\"\n"
      "  lorikeet chat --url https://HOST:8000 --cacert ca.pem");
  command->callback([flags, &exit_status] {
    if (flags->adapter == comm::kBaseModel) flags->adapter.clear();
    exit_status = exit_status_of("chat", chat(*flags));
  });
}

}  // namespace lorikeet::launcher
