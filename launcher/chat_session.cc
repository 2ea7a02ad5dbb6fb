#include "launcher/chat_session.h"

#include <fmt/format.h>

#include <utility>

#include "kernels/base/nearest_word.h"

namespace lorikeet::launcher {
namespace {

constexpr const char* kHelp =
    "/adapter NAME   let another adapter answer from now on; - is the base model\n"
    "/adapter        which adapters are there\n"
    "/system TEXT    begin anew behind this system message\n"
    "/new            begin anew\n"
    "/retry          have the last message answered again\n"
    "/help           this\n"
    "/quit           end; so does Ctrl-D\n"
    "A line that ends with \\ goes on in the next one. Ctrl-C ends an answer.";

std::string trimmed(const std::string& text) {
  const size_t begin = text.find_first_not_of(" \t");
  if (begin == std::string::npos) return "";
  return text.substr(begin, text.find_last_not_of(" \t") + 1 - begin);
}

}  // namespace

ChatSession::ChatSession(comm::GenerateRequest sampling, std::string adapter, std::optional<std::string> system)
    : sampling_(std::move(sampling)), adapter_(std::move(adapter)) {
  if (system) messages_.push_back({"system", *std::move(system)});
}

ChatOrder ChatSession::take(const std::string& line) {
  if (trimmed(line).empty()) return {};
  if (line.front() == '/') {
    const size_t space = line.find(' ');
    return command(line.substr(1, space == std::string::npos ? space : space - 1),
                   space == std::string::npos ? "" : trimmed(line.substr(space)));
  }
  messages_.push_back({"user", line});
  return {ChatOrder::Kind::send, "", ""};
}

ChatOrder ChatSession::command(const std::string& name, const std::string& argument) {
  const auto begin_anew = [this] {
    const bool system = !messages_.empty() && messages_.front().role == "system";
    messages_.resize(system ? 1 : 0);
  };
  if (name == "help" || name == "?") return {ChatOrder::Kind::nothing, "", kHelp};
  if (name == "quit" || name == "exit") return {ChatOrder::Kind::quit, "", ""};
  if (name == "adapter") return {ChatOrder::Kind::adapter, argument, ""};
  if (name == "new") {
    begin_anew();
    return {ChatOrder::Kind::nothing, "", "a new talk"};
  }
  if (name == "system") {
    messages_.clear();
    if (!argument.empty()) messages_.push_back({"system", argument});
    return {ChatOrder::Kind::nothing, "", argument.empty() ? "a new talk without a system message" : "a new talk"};
  }
  if (name == "retry") {
    if (messages_.empty() || messages_.back().role != "assistant") {
      return {ChatOrder::Kind::nothing, "", "there is no answer yet"};
    }
    messages_.pop_back();
    return {ChatOrder::Kind::retry, "", ""};
  }
  const std::string guess = nearest_word(name.substr(0, 32), {"adapter", "system", "new", "retry", "help", "quit"});
  return {ChatOrder::Kind::nothing, "",
          guess.empty() ? fmt::format("there is no /{}; /help lists what there is", name)
                        : fmt::format("there is no /{}; did you mean /{}?", name, guess)};
}

comm::GenerateRequest ChatSession::request() const {
  comm::GenerateRequest request = sampling_;
  request.messages = messages_;
  if (!adapter_.empty()) request.adapter = adapter_;
  return request;
}

void ChatSession::answered(std::string text) {
  messages_.push_back({"assistant", std::move(text)});
}

void ChatSession::refused() {
  if (!messages_.empty() && messages_.back().role == "user") messages_.pop_back();
}

}  // namespace lorikeet::launcher
