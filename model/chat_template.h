// ChatML, as the Qwen models use it. Formats reference, section 6.
#pragma once

#include <cstdint>
#include <filesystem>
#include <string>
#include <vector>

#include "kernels/error.h"
#include "model/tokenizer.h"

namespace lorikeet::model {

struct ChatMessage {
  std::string role;  // system, user, assistant, tool
  std::string content;
};

// The conversation's ids, ending with the header of the assistant's turn. Message bodies never give control tokens,
// whatever they spell.
class ChatTemplate {
 public:
  // Recognises the template of DIR/tokenizer_config.json by what it renders for the default system prompt.
  static Result<ChatTemplate> load(const std::filesystem::path& dir, const Tokenizer& tokenizer);

  Result<std::vector<int32_t>> render(const std::vector<ChatMessage>& messages, const Tokenizer& tokenizer) const;

 private:
  std::string default_system_;  // empty: none is added
};

}  // namespace lorikeet::model
