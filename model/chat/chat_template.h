// Turns conversations into prompts with a checkpoint's own chat template, as transformers' apply_chat_template does.
#pragma once

#include <cstdint>
#include <filesystem>
#include <map>
#include <string>
#include <string_view>
#include <vector>

#include "kernels/base/error.h"
#include "model/chat/chat_message.h"
#include "model/chat/jinja/program.h"
#include "model/tokenizer/tokenizer.h"

namespace lorikeet::model {

// A stretch of a prompt.
struct PromptPart {
  std::string text;
  bool own_words = false;  // the template's; otherwise a value that the client sent
};

// Special tokens count in the template's own words alone: in bodies of messages, names, tools and arguments they are
// text, whatever they spell. Other added tokens (<think>, <tool_call>) are tokens wherever they stand.
// Threads: const methods from any number of threads at once.
class ChatTemplate {
 public:
  // The templates of a checkpoint (read_template_files), else Qwen v1's if DIR has qwen.tiktoken. `chosen`
  // (--chat-template) overrules them: a known name, or a file with a template (Jinja). Fails, naming that flag as the
  // way out, if there is none or it cannot be read, and if it speaks of ChatML's tokens and the tokenizer lacks them.
  static Result<ChatTemplate> load(const std::filesystem::path& dir, const Tokenizer& tokenizer,
                                   std::string_view chosen = {});

  // The conversation's ids. Fails with the template's own sentence where it raises one, and on what it would drop:
  // tools or roles that it never speaks of.
  Result<std::vector<int32_t>> render(const std::vector<ChatMessage>& messages, const Tokenizer& tokenizer,
                                      const ChatOptions& options = {}) const;

  // The same, and the template's words behind the last that are a client's: what it opens the answer with.
  struct Prompt {
    std::vector<int32_t> ids;
    std::string last_words;
  };
  Result<Prompt> render_prompt(const std::vector<ChatMessage>& messages, const Tokenizer& tokenizer,
                               const ChatOptions& options = {}) const;

  // The same as text, whole or in parts.
  Result<std::string> render_text(const std::vector<ChatMessage>& messages, const ChatOptions& options = {}) const;
  Result<std::vector<PromptPart>> render_parts(const std::vector<ChatMessage>& messages,
                                               const ChatOptions& options = {}) const;

  const std::string& name() const { return name_; }  // a known one's, else the file
  bool has_tools() const;                            // tools and calls of tools can be rendered
  bool shows_parts() const;                          // it goes through contents, and so takes lists of parts

  // Another template with this one's tokens, as a request may bring it.
  Result<ChatTemplate> with_source(const std::string& source) const;

  // Special tokens count in all words, whoever wrote them, as in transformers.
  void trust_special_tokens() { trusts_ = true; }

 private:
  struct Variant {
    std::string source;
    jinja::Program program;
  };

  static Result<ChatTemplate> of_source(std::string name, const std::string& source, const std::string& where);
  static Result<ChatTemplate> find(const std::filesystem::path& dir, std::string_view chosen);
  const Variant& variant_for(const ChatOptions& options) const;
  Result<jinja::Text> render_whole(const std::vector<ChatMessage>& messages, const ChatOptions& options) const;

  std::string name_;
  std::map<std::string, Variant> variants_;    // "default", and "tool_use" where there is one
  std::map<std::string, std::string> tokens_;  // bos_token and the like, as the template may print them
  bool bodies_apart_ = false;
  bool trusts_ = false;  // special tokens of clients
};

}  // namespace lorikeet::model
