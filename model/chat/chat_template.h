// Turns conversations into prompts with the chat templates of the Qwen models (ChatML). Formats reference, section 6.
#pragma once

#include <cstdint>
#include <filesystem>
#include <string>
#include <string_view>
#include <vector>

#include "kernels/base/error.h"
#include "model/chat/chat_message.h"
#include "model/chat/chat_render.h"
#include "model/tokenizer/tokenizer.h"

namespace lorikeet::model {

// Message bodies never give control tokens, whatever they spell; nor do tools, names and arguments of calls.
// Threads: const methods from any number of threads at once.
class ChatTemplate {
 public:
  // The template of a checkpoint: of DIR/chat_template.jinja, else of DIR/tokenizer_config.json, else Qwen v1's if DIR
  // has qwen.tiktoken. `chosen` (--chat-template) overrules them: a known name, or a file with a template (Jinja).
  // Fails, naming that flag as the way out, if there is none or it is not one of the known ones; a known one with
  // another default system prompt is known. Fails if the tokenizer lacks ChatML's control tokens.
  static Result<ChatTemplate> load(const std::filesystem::path& dir, const Tokenizer& tokenizer,
                                   std::string_view chosen = {});

  // The conversation's ids, ending with the header of the assistant's turn. Fails on what the template would drop or
  // garble (see render_chat).
  Result<std::vector<int32_t>> render(const std::vector<ChatMessage>& messages, const Tokenizer& tokenizer,
                                      const ChatOptions& options = {}) const;

  // The same as text.
  Result<std::string> render_text(const std::vector<ChatMessage>& messages, const ChatOptions& options = {}) const;

  std::string_view name() const { return name_; }  // as --chat-template takes it
  bool has_tools() const;                          // tools and calls of tools can be rendered

 private:
  ChatTemplate(std::string_view name, ChatFormat format, std::string default_system);
  static Result<ChatTemplate> named(std::string_view name);
  static Result<ChatTemplate> recognise(std::string_view source, const std::string& where);
  static Result<ChatTemplate> find(const std::filesystem::path& dir, std::string_view chosen);

  std::string_view name_;  // of static storage
  ChatFormat format_ = ChatFormat::chatml;
  std::string default_system_;  // empty: none is added
};

}  // namespace lorikeet::model
