// A message of a chat, with all fields of OpenAI's.
#pragma once

#include <nlohmann/json_fwd.hpp>
#include <optional>
#include <string>
#include <vector>

#include "comm/client/json_text.h"

namespace lorikeet::comm {

// A call of a tool, that an assistant has made. In JSON {"id", "type": "function", "function": {"name", "arguments"}}.
struct ToolCall {
  std::string id = {};  // empty: none
  std::string name = {};
  std::string arguments = {};  // JSON; in an answer whatever the model wrote, valid or not

  bool operator==(const ToolCall&) const = default;
  template <class Self, class Visitor>
  static void fields(Self& s, Visitor&& visit) {
    visit("id", s.id);
    visit("name", s.name);
    visit("arguments", s.arguments);
  }
};

nlohmann::json tool_call_form(const ToolCall& call);

// In JSON as OpenAI has it: the content may be a string, null beside calls, or a list of parts.
struct Message {
  std::string role = {};
  std::string content = {};  // of a list, the text parts, each on lines of its own
  std::optional<std::string> reasoning_content = {};
  std::vector<ToolCall> tool_calls = {};
  JsonText more = {};  // empty, or an object: further members, and `content` where it was a list

  nlohmann::json json_form() const;
  std::optional<JsonProblem> read_json_form(const nlohmann::json& form);

  // Its bytes, about: a measure of memory and of the time to read it.
  size_t bytes() const;

  template <class Self, class Visitor>
  static void fields(Self& s, Visitor&& visit) {
    visit("role", s.role);
    visit("content", s.content);
    visit("reasoning_content", s.reasoning_content);
    visit("tool_calls", s.tool_calls);
    visit("more", s.more);
  }
};

}  // namespace lorikeet::comm
