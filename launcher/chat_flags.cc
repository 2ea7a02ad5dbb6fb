#include "launcher/chat_flags.h"

#include <fmt/ranges.h>

#include <filesystem>
#include <nlohmann/json.hpp>
#include <string>
#include <system_error>
#include <vector>

#include "model/chat/known_templates.h"

namespace lorikeet::launcher {

void add_chat_flags(CLI::App& app, actors::ServerOptions& options) {
  actors::ChatOptions& o = options.chat;
  const std::string group = "Chats";
  app.add_option("--chat-template", options.chat_template,
                 "Name of a known chat template, or a file that is one (default: the checkpoint's own)")
      ->group(group);
  app.add_option("--default-chat-template-kwargs", o.default_template_kwargs,
                 "JSON object that the template is told where a request's chat_template_kwargs do not say it")
      ->group(group);
  app.add_option("--chat-template-content-format", o.content_format,
                 "Contents of messages as the template gets them: string, openai (a list of parts), or by its source")
      ->check(CLI::IsMember({"auto", "string", "openai"}))
      ->group(group);
  app.add_flag("--trust-request-chat-template", o.trust_request_template, "Take chat_template of requests")
      ->group(group);
  app.add_flag("--special-tokens-in-messages", o.special_tokens_in_text,
               "Special tokens count in what clients send, too, as in transformers; here they are text otherwise")
      ->group(group);
  app.add_flag("--enable-auto-tool-choice", o.enable_auto_tool_choice,
               "Look for calls of tools in answers; needs --tool-call-parser")
      ->group(group);
  app.add_option("--tool-call-parser", o.tool_call_parser, "The form in which the model writes calls of tools")
      ->check(CLI::IsMember({"hermes", "qwen3_coder", "qwen3_xml"}))
      ->group(group);
  app.add_option("--reasoning-parser", o.reasoning_parser,
                 "Split reasoning (<think>) off answers: of models that may (qwen3) or always do (deepseek_r1)")
      ->check(CLI::IsMember({"qwen3", "deepseek_r1"}))
      ->group(group);
}

Result<void> check_chat_flags(const actors::ChatOptions& options) {
  if (options.enable_auto_tool_choice && options.tool_call_parser.empty()) {
    return fail("--enable-auto-tool-choice needs --tool-call-parser");
  }
  if (options.default_template_kwargs.empty()) return {};
  if (nlohmann::json::parse(options.default_template_kwargs, nullptr, false).is_object()) return {};
  return fail("--default-chat-template-kwargs {}: give a JSON object", options.default_template_kwargs);
}

Result<void> check_chat_template(const std::string& chosen) {
  std::error_code error;
  if (chosen.empty() || model::find_known_template(chosen) != nullptr || std::filesystem::exists(chosen, error)) {
    return {};
  }
  std::vector<std::string> names;
  for (const model::KnownTemplate& known : model::known_templates()) names.emplace_back(known.name);
  return fail("--chat-template {}: there is no such file, nor a chat template of that name; known are {}", chosen,
              fmt::join(names, ", "));
}

}  // namespace lorikeet::launcher
