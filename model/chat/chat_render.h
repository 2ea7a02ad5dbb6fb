// The formats of Qwen's chat templates, written out. Sources: the chat_template of each family's tokenizer_config.json;
// Qwen v1's qwen_generation_utils.py. Verified against Jinja by tests/data/make/chat_templates.py.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "kernels/base/error.h"
#include "model/chat/chat_message.h"

namespace lorikeet::model {

enum class ChatFormat : uint8_t {
  qwen,               // v1: a body is encoded apart from its header
  chatml,             // Qwen1.5, Qwen2: turns and nothing else
  chatml_open_end,    // Qwen1.5's first version: no header after a last turn of the assistant
  qwen2_5,            // tools
  qwen2_5_braces,     // the same; its quantised checkpoints show models the call's form in doubled braces
  qwen3,              // tools and thoughts
  qwen3_nonthinking,  // the same, every answer opened with an empty thought
};

struct PromptPart {
  std::string text;
  bool own_words = false;  // the template's, in which control tokens count; otherwise a client's
  bool apart = false;      // no token spans this part and the one before
};

// default_system: the system prompt of conversations that have none; empty: none is added (qwen3: never).
// Fails on what the format would drop or garble: no message, unknown roles, tools where it has none, tools or arguments
// that are not JSON.
Result<std::vector<PromptPart>> render_chat(ChatFormat format, const std::string& default_system,
                                            const std::vector<ChatMessage>& messages, const ChatOptions& options);

}  // namespace lorikeet::model
