// A conversation, as clients send it.
#pragma once

#include <optional>
#include <string>
#include <vector>

namespace lorikeet::model {

struct ToolCall {
  std::string name;
  std::string arguments;  // JSON; empty counts as {}
};

struct ChatMessage {
  std::string role;  // system, user, assistant, tool
  std::string content;
  std::optional<std::string> reasoning_content = {};  // of the assistant: what it thought before it answered
  std::vector<ToolCall> tool_calls = {};              // of the assistant
};

struct ChatOptions {
  std::vector<std::string> tools = {};  // one JSON object each, with its keys in the order that the client gave
  bool enable_thinking = true;          // Qwen3: false opens the answer with an empty thought
  bool add_generation_prompt = true;    // end with the header of the assistant's turn
};

}  // namespace lorikeet::model
