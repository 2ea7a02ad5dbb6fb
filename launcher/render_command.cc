#include <fmt/format.h>

#include <memory>
#include <nlohmann/json.hpp>

#include "launcher/commands.h"
#include "launcher/exit_status.h"
#include "launcher/json_lines.h"
#include "model/chat/chat_template.h"
#include "model/chat/conversation_json.h"
#include "model/tokenizer/tokenizer.h"

namespace lorikeet::launcher {
namespace {

using Json = nlohmann::ordered_json;

struct RenderFlags {
  std::string model;
  std::string chat_template;
  bool special_tokens = false;
  std::string input = "-";
  std::string output = "-";
};

// One line's answer: {"text", "ids", "parts": [{"text", "from"}]}, or {"line", "error"}.
Json render_line(const model::ChatTemplate& chat, const model::Tokenizer& tokenizer, const std::string& line,
                 int64_t number) {
  const auto failed = [&](const std::string& message) { return Json{{"line", number}, {"error", message}}; };
  const auto conversation = model::parse_conversation(line);
  if (!conversation) return failed(conversation.error().message);
  const auto parts = chat.render_parts(conversation->messages, conversation->options);
  if (!parts) return failed(parts.error().message);
  const auto ids = chat.render(conversation->messages, tokenizer, conversation->options);
  if (!ids) return failed(ids.error().message);
  Json answer = {{"text", ""}, {"ids", *ids}, {"parts", Json::array()}};
  std::string text;
  for (const model::PromptPart& part : *parts) {
    text += part.text;
    answer["parts"].push_back({{"text", part.text}, {"from", part.own_words ? "template" : "conversation"}});
  }
  answer["text"] = std::move(text);
  return answer;
}

Result<void> render(const RenderFlags& flags) {
  auto tokenizer = model::Tokenizer::load(flags.model);
  if (!tokenizer) return tl::unexpected(tokenizer.error());
  auto chat = model::ChatTemplate::load(flags.model, **tokenizer, flags.chat_template);
  if (!chat) return tl::unexpected(chat.error());
  if (flags.special_tokens) chat->trust_special_tokens();
  return answer_lines(flags.input, flags.output, [&](const std::string& line, int64_t number) {
    return render_line(*chat, **tokenizer, line, number).dump(-1, ' ', false, Json::error_handler_t::replace);
  });
}

}  // namespace

void add_render_command(CLI::App& app, int& exit_status) {
  auto flags = std::make_shared<RenderFlags>();
  CLI::App* command = app.add_subcommand(
      "render", "Shows what conversations become by the chat template; needs only the tokenizer's files");
  command->option_defaults()->always_capture_default();
  command->add_option("MODEL,--model", flags->model, "Directory with the tokenizer's files and the chat template")
      ->required();
  command->add_option("--chat-template", flags->chat_template,
                      "Name of a known chat template, or a file that is one (default: the checkpoint's own)");
  command->add_flag("--special-tokens-in-messages", flags->special_tokens,
                    "Special tokens count in messages, too, as in transformers");
  command->add_option("--input", flags->input,
                      "Lines of {\"messages\": [...], \"tools\", \"documents\", \"add_generation_prompt\", "
                      "\"continue_final_message\", \"enable_thinking\", \"chat_template_kwargs\"}; - is the standard "
                      "input");
  command->add_option("--output", flags->output,
                      "Lines of {\"text\", \"ids\", \"parts\": [{\"text\", \"from\": \"template\" or "
                      "\"conversation\"}]}; - is the standard output");
  command->callback([flags, &exit_status] { exit_status = exit_status_of("render", render(*flags)); });
}

}  // namespace lorikeet::launcher
