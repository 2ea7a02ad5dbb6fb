#include "actors/head/chat_prompt.h"

#include <nlohmann/json.hpp>
#include <optional>
#include <utility>

namespace lorikeet::actors {
namespace {

model::ChatMessage message_of(const comm::Message& from) {
  model::ChatMessage to;
  to.role = from.role;
  to.content = from.content;
  to.reasoning_content = from.reasoning_content;
  for (const comm::ToolCall& call : from.tool_calls) to.tool_calls.push_back({call.name, call.arguments, call.id});
  to.more = from.more.text;
  return to;
}

model::ChatOptions template_options(const comm::GenerateRequest& request, const ChatOptions& server,
                                    const model::ChatTemplate& chat_template) {
  model::ChatOptions to;
  for (const comm::JsonText& tool : request.tools) to.tools.push_back(tool.text);
  for (const comm::JsonText& document : request.documents) to.documents.push_back(document.text);
  to.continue_final_message = request.continue_final_message;
  to.add_generation_prompt = request.add_generation_prompt.value_or(!request.continue_final_message);
  to.default_variables.push_back(server.default_template_kwargs);
  if (request.reasoning_effort) {
    nlohmann::json effort = {{"reasoning_effort", *request.reasoning_effort}};
    if (*request.reasoning_effort == "none") effort["enable_thinking"] = false;
    to.default_variables.push_back(effort.dump(-1, ' ', false, nlohmann::json::error_handler_t::replace));
  }
  if (request.chat_template_kwargs) to.variables = request.chat_template_kwargs->text;
  const bool parts =
      server.content_format == "openai" || (server.content_format != "string" && chat_template.shows_parts());
  to.contents = parts ? model::ChatOptions::Contents::parts : model::ChatOptions::Contents::text;
  return to;
}

}  // namespace

Result<ChatPrompt> chat_prompt(const model::ChatTemplate& server_template, const model::Tokenizer& tokenizer,
                               const comm::GenerateRequest& request, const ChatOptions& options) {
  std::optional<model::ChatTemplate> own;
  if (request.chat_template) {
    if (!options.trust_request_template) {
      return fail("chat_template: this server takes no templates from clients (--trust-request-chat-template)");
    }
    auto made = server_template.with_source(*request.chat_template);
    if (!made) return tl::unexpected(made.error());
    own = *std::move(made);
  }
  const model::ChatTemplate& chat_template = own ? *own : server_template;
  std::vector<model::ChatMessage> messages;
  messages.reserve(request.messages->size());
  for (const comm::Message& message : *request.messages) messages.push_back(message_of(message));
  auto prompt = chat_template.render_prompt(messages, tokenizer, template_options(request, options, chat_template));
  if (!prompt) return tl::unexpected(prompt.error());
  if (request.continue_final_message) return ChatPrompt{std::move(prompt->ids), request.messages->back().content};
  return ChatPrompt{std::move(prompt->ids), std::move(prompt->last_words)};
}

}  // namespace lorikeet::actors
