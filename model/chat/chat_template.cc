#include "model/chat/chat_template.h"

#include <algorithm>
#include <ctime>
#include <system_error>
#include <utility>

#include "model/chat/chat_variables.h"
#include "model/chat/known_templates.h"
#include "model/chat/template_files.h"
#include "model/config/read_file.h"

namespace lorikeet::model {
namespace {

std::string known_names() {
  std::string names;
  for (const KnownTemplate& known : known_templates()) names += (names.empty() ? "" : ", ") + known.name;
  return names;
}

// Whether a template has this word as a string.
bool names(const std::string& source, const std::string& word) {
  return source.find('\'' + word + '\'') != std::string::npos || source.find('"' + word + '"') != std::string::npos;
}

// A role from outside, short enough for a sentence.
std::string quoted(const std::string& role) {
  return role.size() <= 80 ? "\"" + role + "\"" : "\"" + role.substr(0, 80) + "...\"";
}

// What the template would leave out without a word is refused.
Result<void> check(const std::vector<ChatMessage>& messages, const ChatOptions& options, const std::string& source,
                   bool has_tools) {
  if (messages.empty()) return fail("there are no messages");
  if (!has_tools && !options.tools.empty()) return fail("tools: this model's chat template has none");
  if (options.continue_final_message && options.add_generation_prompt) {
    return fail("continue_final_message and add_generation_prompt exclude each other");
  }
  for (size_t i = 0; i < messages.size(); ++i) {
    const ChatMessage& message = messages[i];
    const bool turn = message.role == "system" || message.role == "user" || message.role == "assistant";
    const bool named = names(source, message.role);
    if (!turn && message.role != "tool" && !named) {
      return fail("messages[{}]: the role {} is none of system (or developer), user, assistant and tool", i,
                  quoted(message.role));
    }
    if (message.role == "tool" && !named) {
      return fail("messages[{}]: the role is tool, but this model's chat template has no tools", i);
    }
    if (message.tool_calls.empty()) continue;
    if (message.role != "assistant") return fail("messages[{}]: tool_calls in a message of the {}", i, message.role);
    if (source.find("tool_calls") == std::string::npos) {
      return fail("messages[{}]: tool_calls, but this model's chat template has no tools", i);
    }
  }
  return {};
}

// The prompt up to the mark behind the last message.
Result<jinja::Text> cut_at_mark(const jinja::Text& text) {
  std::string_view mark = kContinueMark;
  const size_t at = text.view().rfind(mark.substr(0, mark.size() - 1));
  if (at == std::string_view::npos) {
    return fail("continue_final_message: the chat template leaves the last message out or changes it");
  }
  if (text.view().substr(at).starts_with(mark)) return text.slice(0, at);
  return text.slice(0, jinja::stripped(text.view().substr(0, at), nullptr, false, true).end);  // it trims messages
}

}  // namespace

Result<ChatTemplate> ChatTemplate::of_source(std::string name, const std::string& source, const std::string& where) {
  auto program = jinja::Program::compile(source);
  if (!program) {
    return fail("{}: the chat template cannot be read: {}; choose another with --chat-template: a file, or {}", where,
                program.error().message, known_names());
  }
  ChatTemplate result;
  result.name_ = std::move(name);
  result.variants_.emplace("default", Variant{source, *std::move(program)});
  return result;
}

Result<ChatTemplate> ChatTemplate::find(const std::filesystem::path& dir, std::string_view chosen) {
  std::error_code error;
  const auto of_known = [](const KnownTemplate& known) {
    auto result = of_source(known.name, known.source, known.name);
    if (result) result->bodies_apart_ = known.bodies_apart;
    return result;
  };
  if (!chosen.empty()) {
    if (const KnownTemplate* known = find_known_template(chosen)) return of_known(*known);
    if (!std::filesystem::exists(chosen, error)) {
      return fail("--chat-template: no chat template is named {}; known are {}, and no such file exists", chosen,
                  known_names());
    }
    auto source = read_file(chosen, kMaxTextFile);
    if (!source) return fail("--chat-template: {}", source.error().message);
    return of_source(std::string(chosen), *source, std::string(chosen));
  }
  auto files = read_template_files(dir);
  if (!files) return tl::unexpected(files.error());
  if (files->sources.contains("default")) {
    auto result = of_source(files->where, files->sources["default"], files->where);
    if (!result) return result;
    if (const auto for_tools = files->sources.find("tool_use"); for_tools != files->sources.end()) {
      auto program = jinja::Program::compile(for_tools->second);
      if (!program)
        return fail("{}: the chat template tool_use cannot be read: {}", dir.string(), program.error().message);
      result->variants_.emplace("tool_use", Variant{for_tools->second, *std::move(program)});
    }
    return result;
  }
  if (std::filesystem::exists(dir / "qwen.tiktoken", error)) return of_known(*find_known_template("qwen"));
  return fail("{}: there is no chat template; choose one with --chat-template: a file, or {}", dir.string(),
              known_names());
}

Result<ChatTemplate> ChatTemplate::load(const std::filesystem::path& dir, const Tokenizer& tokenizer,
                                        std::string_view chosen) {
  auto found = find(dir, chosen);
  if (!found) return found;
  const std::string& source = found->variants_.at("default").source;
  for (const char* control : {"<|im_start|>", "<|im_end|>"}) {
    if (source.find(control) != std::string::npos && tokenizer.id_of(control) < 0) {
      return fail("{}: the chat template \"{}\" needs the token {}, which the tokenizer lacks", dir.string(),
                  found->name(), control);
    }
  }
  found->tokens_ = tokenizer.named_tokens();
  return found;
}

const ChatTemplate::Variant& ChatTemplate::variant_for(const ChatOptions& options) const {
  const auto for_tools = variants_.find("tool_use");
  return !options.tools.empty() && for_tools != variants_.end() ? for_tools->second : variants_.at("default");
}

Result<jinja::Text> ChatTemplate::render_whole(const std::vector<ChatMessage>& messages,
                                               const ChatOptions& options) const {
  const Variant& variant = variant_for(options);
  if (auto ok = check(messages, options, variant.source, has_tools()); !ok) return tl::unexpected(ok.error());
  auto variables = chat_variables(messages, options);
  if (!variables) return tl::unexpected(variables.error());
  for (const auto& [name, token] : tokens_) variables->emplace(name, jinja::Text::own(token));
  auto text = variant.program.render(*variables, std::time(nullptr));
  if (!text) return fail("chat template: {}", text.error().message);
  return options.continue_final_message ? cut_at_mark(*text) : std::move(text);
}

Result<std::vector<PromptPart>> ChatTemplate::render_parts(const std::vector<ChatMessage>& messages,
                                                           const ChatOptions& options) const {
  auto text = render_whole(messages, options);
  if (!text) return tl::unexpected(text.error());
  std::vector<PromptPart> parts;
  size_t at = 0;
  const auto add = [&](size_t end, bool own) {
    if (end > at) parts.push_back({text->bytes().substr(at, end - at), own});
    at = end;
  };
  for (const jinja::Span& span : text->foreign_spans()) {
    add(span.begin, true);
    add(span.end, false);
  }
  add(text->size(), true);
  return parts;
}

Result<std::vector<int32_t>> ChatTemplate::render(const std::vector<ChatMessage>& messages, const Tokenizer& tokenizer,
                                                  const ChatOptions& options) const {
  auto prompt = render_prompt(messages, tokenizer, options);
  if (!prompt) return tl::unexpected(prompt.error());
  return std::move(prompt->ids);
}

Result<ChatTemplate::Prompt> ChatTemplate::render_prompt(const std::vector<ChatMessage>& messages,
                                                         const Tokenizer& tokenizer, const ChatOptions& options) const {
  auto text = render_whole(messages, options);
  if (!text) return tl::unexpected(text.error());
  const size_t last = text->has_foreign() ? text->foreign_spans().back().end : 0;
  Prompt prompt;
  prompt.last_words = text->bytes().substr(last);
  if (trusts_) {
    prompt.ids = tokenizer.encode(text->view(), true);
    return prompt;
  }
  std::vector<TextSegment> segments;
  size_t at = 0;
  const auto add = [&](size_t end, bool own) {
    if (end > at) segments.push_back({text->view().substr(at, end - at), own, bodies_apart_ && !own});
    at = end;
  };
  for (const jinja::Span& span : text->foreign_spans()) {
    add(span.begin, true);
    add(span.end, false);
  }
  add(text->size(), true);
  prompt.ids = tokenizer.encode(segments);
  return prompt;
}

Result<std::string> ChatTemplate::render_text(const std::vector<ChatMessage>& messages,
                                              const ChatOptions& options) const {
  auto text = render_whole(messages, options);
  if (!text) return tl::unexpected(text.error());
  return text->bytes();
}

Result<ChatTemplate> ChatTemplate::with_source(const std::string& source) const {
  auto program = jinja::Program::compile(source);
  if (!program) return fail("chat_template: {}", program.error().message);
  ChatTemplate result = *this;
  result.name_ = "chat_template";
  result.bodies_apart_ = false;
  result.variants_.clear();
  result.variants_.emplace("default", Variant{source, *std::move(program)});
  return result;
}

bool ChatTemplate::shows_parts() const {
  return variants_.at("default").program.loops_over("content");
}

bool ChatTemplate::has_tools() const {
  return std::any_of(variants_.begin(), variants_.end(),
                     [](const auto& variant) { return variant.second.program.mentions("tools"); });
}

}  // namespace lorikeet::model
