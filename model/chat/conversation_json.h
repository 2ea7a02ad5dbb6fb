// A conversation as JSON: the lines of `lorikeet render`, and what other interfaces hand on of theirs.
#pragma once

#include <string_view>
#include <vector>

#include "kernels/base/error.h"
#include "model/chat/chat_message.h"

namespace lorikeet::model {

struct Conversation {
  std::vector<ChatMessage> messages;
  ChatOptions options;
};

// {"messages": [...], "tools", "documents", "add_generation_prompt", "continue_final_message", "enable_thinking",
// "chat_template_kwargs"}; all but the messages may be absent. Arguments of calls may be objects or JSON in a string.
// Keys keep their order. Unknown members are refused by name.
Result<Conversation> parse_conversation(std::string_view json);

}  // namespace lorikeet::model
