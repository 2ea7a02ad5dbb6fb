#include "launcher/command_line.h"

#include <fmt/format.h>
#include <fmt/ranges.h>

#include <algorithm>
#include <array>
#include <optional>

#include "kernels/base/console.h"
#include "kernels/base/nearest_word.h"
#include "kernels/base/printable.h"
#include "launcher/config_file.h"
#include "launcher/exit_status.h"
#include "launcher/foreign_flags.h"

namespace lorikeet::launcher {
namespace {

std::vector<std::string> commands_of(const CLI::App& app) {
  std::vector<std::string> names;
  for (const CLI::App* command : app.get_subcommands([](const CLI::App*) { return true; })) {
    names.push_back(command->get_name());
  }
  return names;
}

std::vector<std::string> flags_of(const CLI::App& app) {
  std::vector<std::string> names;
  for (const CLI::Option* option : app.get_options()) {
    for (const std::string& name : option->get_lnames()) names.push_back("--" + name);
    for (const std::string& name : option->get_snames()) names.push_back("-" + name);
  }
  return names;
}

// The innermost command that the arguments have reached, and how people call it.
std::pair<CLI::App*, std::string> reached(CLI::App& app) {
  CLI::App* command = &app;
  std::string name = app.get_name();
  while (!command->get_subcommands().empty()) {
    command = command->get_subcommands().back();
    name += " " + command->get_name();
  }
  return {command, name};
}

// CLI11 takes a word in brackets for a list, and a prompt may be one. So such words are marked while it parses.
constexpr char kMark = '\x1f';

void mark_brackets(std::vector<std::string>& words) {
  for (std::string& word : words) {
    if (word.size() > 1 && word.front() == '[' && word.back() == ']') word += kMark;
  }
}

std::string unmarked(std::string text) {
  text.erase(std::remove(text.begin(), text.end(), kMark), text.end());
  return text;
}

void unmark_values(CLI::App& app) {
  for (CLI::Option* option : app.get_options([](CLI::Option*) { return true; })) {
    option->transform(&unmarked);
  }
  for (CLI::App* command : app.get_subcommands([](CLI::App*) { return true; })) unmark_values(*command);
}

constexpr size_t kMostMessageBytes = 4000;

int usage_error(const std::string& command, const std::string& message) {
  // What was given, which may hold anything, is a part of it.
  say("{}: {}\n{} --help lists what it takes", command, printable(message, kMostMessageBytes), command);
  return kWrongCommandLine;
}

std::string did_you_mean(std::string_view word, const std::vector<std::string>& known) {
  const std::string guess = nearest_word(word, known);
  return guess.empty() ? "" : fmt::format("; did you mean '{}'?", guess);
}

// The arguments that nobody takes, in their order, with guesses for the flags among them.
std::string unexpected(const CLI::App& command) {
  const std::vector<std::string> rest = command.remaining();
  for (const std::string& word : rest) {
    if (word.rfind("--", 0) != 0) continue;
    const std::string guess = did_you_mean(word.substr(0, word.find('=')), flags_of(command));
    if (!guess.empty()) return fmt::format("there is no '{}'{}", word, guess);
  }
  return fmt::format("unexpected: {}", fmt::join(rest, " "));
}

// "0.000000 to 86400.000000", as the parser writes bounds: "0 to 86400".
std::string without_zeros(std::string text) {
  constexpr std::string_view kZeros = ".000000";
  for (size_t at = text.find(kZeros); at != text.npos; at = text.find(kZeros, at)) text.erase(at, kZeros.size());
  return text;
}

// What the parser says of a value, in words: "Could not convert: --port = x", "--port: 1 required INT missing".
std::string plain(const CLI::ParseError& error) {
  const std::string said = error.what();
  const auto part = [&said](std::string_view before, std::string_view behind) -> std::optional<std::string> {
    const size_t begin = said.find(before), from = begin + before.size();
    const size_t end = begin == said.npos ? said.npos : said.find(behind, from);
    if (end == said.npos) return std::nullopt;
    return said.substr(from, end - from);
  };
  constexpr std::string_view kUnread = "Could not convert: ", kEquals = " = ", kNone = ": 1 required ";
  if (const auto flag = error.get_name() == "ConversionError" ? part(kUnread, kEquals) : std::nullopt) {
    return fmt::format("{}: give a number that fits, not {}", *flag,
                       said.substr(kUnread.size() + flag->size() + kEquals.size()));
  }
  if (error.get_name() == "ArgumentMismatch" && part(kNone, " missing")) {
    return said.substr(0, said.find(kNone)) + ": give a value";
  }
  constexpr std::string_view kMost = ": At Most ", kReceived = " required but received ";
  if (const auto most = error.get_name() == "ArgumentMismatch" ? part(kMost, kReceived) : std::nullopt) {
    const std::string received = said.substr(said.find(kReceived) + kReceived.size());
    return fmt::format("{}: give {} value{}, not {}", said.substr(0, said.find(kMost)), *most, *most == "1" ? "" : "s",
                       received);
  }
  constexpr std::string_view kValue = ": Value ", kRange = " not in range ";
  if (const auto value = error.get_name() == "ValidationError" ? part(kValue, kRange) : std::nullopt) {
    const std::string range = said.substr(said.find(kRange) + kRange.size());
    return fmt::format("{}: {} is no number from {}", said.substr(0, said.find(kValue)), *value, without_zeros(range));
  }
  return said;
}

struct CommandError {
  std::string command, message;  // as people call the one below which there is no such command
};

// A command that is missing or that does not exist, before the parser says something less clear.
std::optional<CommandError> command_error(const CLI::App& app, const std::vector<std::string>& arguments) {
  const CLI::App* command = &app;
  std::string name = app.get_name();
  for (const std::string& word : arguments) {
    const std::vector<std::string> commands = commands_of(*command);
    if (commands.empty() || word.empty()) return std::nullopt;
    if (word.front() == '-') {
      const std::vector<std::string> flags = flags_of(*command);
      if (std::find(flags.begin(), flags.end(), word.substr(0, word.find('='))) != flags.end()) return std::nullopt;
      return CommandError{name, fmt::format("give a command before '{}': {}", word, fmt::join(commands, ", "))};
    }
    const auto below = command->get_subcommands([&word](const CLI::App* c) { return c->get_name() == word; });
    if (below.empty()) {
      const std::string guess = did_you_mean(word, commands);
      return CommandError{name, guess.empty()
                                    ? fmt::format("there is no command '{}', only {}", word, fmt::join(commands, ", "))
                                    : fmt::format("there is no command '{}'{}", word, guess)};
    }
    command = below.front();
    name += " " + word;
  }
  const std::vector<std::string> commands = commands_of(*command);
  if (commands.empty()) return std::nullopt;
  return CommandError{name, fmt::format("give a command: {}", fmt::join(commands, ", "))};
}

// The innermost command that the words name, and how many of them do.
std::pair<const CLI::App*, size_t> named(const CLI::App& app, const std::vector<std::string>& words) {
  const CLI::App* command = &app;
  size_t depth = 0;
  for (; depth < words.size(); ++depth) {
    const auto below = command->get_subcommands([&](const CLI::App* c) { return c->get_name() == words[depth]; });
    if (below.empty()) break;
    command = below.front();
  }
  return {command, depth};
}

// A value of a flag that takes none, such as --log-json=maybe, of which the parser says nothing clear, or throws what
// is none of its errors; and a flag without its value, for which the parser takes the next flag.
std::optional<CommandError> flag_error(const CLI::App& app, const std::vector<std::string>& words) {
  constexpr std::array<std::string_view, 8> kTruths = {"true", "false", "on", "off", "yes", "no", "1", "0"};
  const auto [command, depth] = named(app, words);
  for (size_t i = depth; i < words.size() && words[i] != "--"; ++i) {
    if (words[i].empty() || words[i].front() != '-') continue;
    const size_t equals = words[i].find('=');
    const std::string flag = words[i].substr(0, equals);
    const CLI::Option* option = command->get_option_no_throw(flag);
    if (option == nullptr) continue;
    std::string name = app.get_name();
    for (size_t k = 0; k < depth; ++k) name += " " + words[k];
    if (equals == std::string::npos) {
      const bool wants_value = option->get_items_expected_min() > 0 && i + 1 < words.size();
      const std::string& next = wants_value ? words[i + 1] : flag;
      const std::string next_flag = next.substr(0, next.find('='));
      if (!wants_value || next.rfind("--", 0) != 0 || command->get_option_no_throw(next_flag) == nullptr) continue;
      return CommandError{name,
                          fmt::format("{0}: give a value; {1} is a flag (if it is meant, write {0}={1})", flag, next)};
    }
    const std::string value = words[i].substr(equals + 1);
    if (option->get_items_expected_max() > 0) continue;
    if (std::find(kTruths.begin(), kTruths.end(), value) != kTruths.end()) continue;
    return CommandError{name, fmt::format("{} takes no value but true and false, not {}", flag, value)};
  }
  return std::nullopt;
}

// With vLLM's other ways to write a flag in the parser's.
std::vector<std::string> with_flags_spelt_out(const CLI::App& app, const std::vector<std::string>& words) {
  const auto [command, depth] = named(app, words);
  const auto rest = words.begin() + static_cast<std::ptrdiff_t>(depth);
  std::vector<std::string> result = spelt_out(*command, {rest, words.end()});
  result.insert(result.begin(), words.begin(), rest);
  return result;
}

// Flags of a --config file in place of the flag, where the command has it.
Result<std::vector<std::string>> with_config_file(const CLI::App& app, const std::vector<std::string>& words) {
  const auto [command, depth] = named(app, words);
  if (command->get_option_no_throw("--config") == nullptr) return words;
  const auto rest = words.begin() + static_cast<std::ptrdiff_t>(depth);
  auto expanded = expand_config_file(*command, {rest, words.end()});
  if (expanded) expanded->insert(expanded->begin(), words.begin(), rest);
  return expanded;
}

}  // namespace

int run_command_line(CLI::App& app, const std::vector<std::string>& arguments, const int& exit_status) {
  std::vector<std::string> words = arguments;
  mark_brackets(words);
  unmark_values(app);
  if (!words.empty() && words.front() == "help") {  // `help serve` is `serve --help`
    words.erase(words.begin());
    words.emplace_back("--help");
  }
  if (const auto error = command_error(app, words)) return usage_error(error->command, unmarked(error->message));
  words = with_flags_spelt_out(app, words);
  if (auto expanded = with_config_file(app, words); expanded) {
    words = *std::move(expanded);
  } else {
    return usage_error(app.get_name() + " " + words.front(), expanded.error().message);
  }
  if (const auto error = flag_error(app, words)) return usage_error(error->command, unmarked(error->message));
  std::reverse(words.begin(), words.end());  // as the parser takes them
  try {
    app.parse(words);
  } catch (const CLI::ExtrasError&) {
    const auto [command, name] = reached(app);
    return usage_error(name, unmarked(unexpected(*command)));
  } catch (const CLI::ParseError& error) {
    if (error.get_exit_code() == 0) return app.exit(error);  // --help, --version
    return usage_error(reached(app).second, unmarked(plain(error)));
  }
  return exit_status;
}

}  // namespace lorikeet::launcher
