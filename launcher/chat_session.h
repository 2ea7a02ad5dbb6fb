// A chat's state between the lines that a person types: the messages so far, and the adapter that answers.
#pragma once

#include <optional>
#include <string>
#include <vector>

#include "comm/client/client_messages.h"

namespace lorikeet::launcher {

// What a line asks for. A line is a message, or a command that begins with a slash.
struct ChatOrder {
  enum class Kind {
    nothing,
    send,     // request() has the message
    retry,    // request() has the last message again
    adapter,  // `argument` is the adapter that is to answer from now on; empty: which ones are there?
    quit,
  };
  Kind kind = Kind::nothing;
  std::string argument;
  std::string say;  // for the person
};

class ChatSession {
 public:
  // adapter: empty for the base model.
  ChatSession(comm::GenerateRequest sampling, std::string adapter, std::optional<std::string> system);

  ChatOrder take(const std::string& line);

  comm::GenerateRequest request() const;
  void answered(std::string text);  // belongs to the talk from now on
  void refused();                   // the last message was not answered: it is taken out again

  void use_adapter(std::string name) { adapter_ = std::move(name); }
  const std::string& adapter() const { return adapter_; }
  const std::vector<comm::Message>& messages() const { return messages_; }

 private:
  ChatOrder command(const std::string& name, const std::string& argument);

  const comm::GenerateRequest sampling_;
  std::string adapter_;
  std::vector<comm::Message> messages_;  // a system's message first, where there is one
};

}  // namespace lorikeet::launcher
