#include <fmt/format.h>

#include <memory>
#include <nlohmann/json.hpp>

#include "launcher/commands.h"
#include "launcher/exit_status.h"
#include "launcher/json_lines.h"
#include "model/tokenizer/tokenizer.h"

namespace lorikeet::launcher {
namespace {

struct TokenizeFlags {
  std::string model;
  std::string input = "-";
  std::string output = "-";
  bool parse_special = true;
  bool add_special = true;
};

// One line's answer: {"ids", "decoded"}, or {"line", "error"} where the line is not {"text": ...}.
nlohmann::ordered_json tokenize_line(const model::Tokenizer& tokenizer, const std::string& line, int64_t number,
                                     const TokenizeFlags& flags) {
  const auto json = nlohmann::json::parse(line, nullptr, false);
  if (!json.is_object() || !json.contains("text") || !json["text"].is_string()) {
    return {{"line", number}, {"error", "not an object with a string \"text\""}};
  }
  const auto& text = json["text"].get_ref<const std::string&>();
  const std::vector<int32_t> ids = flags.add_special ? tokenizer.encode_prompt(text, flags.parse_special)
                                                     : tokenizer.encode(text, flags.parse_special);
  return {{"ids", ids}, {"decoded", tokenizer.decode(ids, false)}};
}

Result<void> tokenize(const TokenizeFlags& flags) {
  auto tokenizer = model::Tokenizer::load(flags.model);
  if (!tokenizer) return tl::unexpected(tokenizer.error());
  return answer_lines(flags.input, flags.output, [&](const std::string& line, int64_t number) {
    return tokenize_line(**tokenizer, line, number, flags).dump();
  });
}

}  // namespace

void add_tokenize_command(CLI::App& app, int& exit_status) {
  auto flags = std::make_shared<TokenizeFlags>();
  CLI::App* command = app.add_subcommand("tokenize", "Turns texts into token ids; needs only the tokenizer's files");
  command->option_defaults()->always_capture_default();
  command->add_option("MODEL,--model", flags->model, "Directory with tokenizer.json, or vocab.json and merges.txt")
      ->required();
  command->add_option("--input", flags->input, "Lines of {\"text\": ...}; - is the standard input");
  command->add_option("--output", flags->output,
                      "Lines of {\"ids\": [...], \"decoded\": ...}; - is the standard output");
  command->add_flag("--parse-special,!--no-parse-special", flags->parse_special,
                    "Whether special tokens spelled in a text become their ids (default: they do)");
  command->add_flag(
      "--add-special-tokens,!--no-add-special-tokens", flags->add_special,
      "Whether what the tokenizer puts around a prompt, such as a begin token, is put there (default: it is)");
  command->callback([flags, &exit_status] { exit_status = exit_status_of("tokenize", tokenize(*flags)); });
}

}  // namespace lorikeet::launcher
