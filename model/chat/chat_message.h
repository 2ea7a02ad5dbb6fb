// A conversation, as clients send it.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <vector>

namespace lorikeet::model {

struct ToolCall {
  std::string name;
  std::string arguments;  // JSON; empty counts as {}
  std::string id = {};    // empty: none
};

struct ChatMessage {
  std::string role;  // system, user, assistant, tool, or another that the template names
  std::string content;
  std::optional<std::string> reasoning_content = {};  // of the assistant: what it thought before it answered
  std::vector<ToolCall> tool_calls = {};              // of the assistant
  std::string more = {};  // a JSON object: further members, and those that count instead (content as a list of parts)
};

struct ChatOptions {
  std::vector<std::string> tools = {};      // one JSON object each, with its keys in the order that the client gave
  std::vector<std::string> documents = {};  // the same
  bool enable_thinking = true;          // false is told to the template: Qwen3 opens the answer with an empty thought
  bool add_generation_prompt = true;    // end with the header of the assistant's turn
  bool continue_final_message = false;  // end inside of the last message, which the answer goes on
  std::string variables = {};           // a JSON object: what else the template is told (chat_template_kwargs)
  std::vector<std::string> default_variables = {};  // the same, where `variables` or a later one does not say it
  // How contents are shown: as they came; as text, so that `content` of ChatMessage::more does not count; or each as a
  // list of parts, also where it was a string.
  enum class Contents : uint8_t { as_given, text, parts } contents = Contents::as_given;
};

}  // namespace lorikeet::model
