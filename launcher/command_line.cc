#include "launcher/command_line.h"

#include <fmt/format.h>
#include <fmt/ranges.h>

#include <algorithm>

#include "kernels/base/console.h"

namespace lorikeet::launcher {
namespace {

constexpr int kUsage = 2;

// Levenshtein's distance, with two neighbouring letters swapped counting as one change.
size_t distance(std::string_view a, std::string_view b) {
  std::vector<std::vector<size_t>> d(a.size() + 1, std::vector<size_t>(b.size() + 1));
  for (size_t i = 0; i <= a.size(); ++i) d[i][0] = i;
  for (size_t j = 0; j <= b.size(); ++j) d[0][j] = j;
  for (size_t i = 1; i <= a.size(); ++i) {
    for (size_t j = 1; j <= b.size(); ++j) {
      const size_t change = a[i - 1] == b[j - 1] ? 0 : 1;
      d[i][j] = std::min({d[i - 1][j] + 1, d[i][j - 1] + 1, d[i - 1][j - 1] + change});
      if (i > 1 && j > 1 && a[i - 1] == b[j - 2] && a[i - 2] == b[j - 1]) {
        d[i][j] = std::min(d[i][j], d[i - 2][j - 2] + 1);
      }
    }
  }
  return d[a.size()][b.size()];
}

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

int usage_error(const std::string& command, const std::string& message) {
  say("{}: {}\n{} --help lists what it takes", command, message, command);
  return kUsage;
}

std::string did_you_mean(std::string_view word, const std::vector<std::string>& known) {
  const std::string guess = nearest(word, known);
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

// A command that is missing or that does not exist, before the parser says something less clear.
std::string command_error(const CLI::App& app, const std::vector<std::string>& arguments) {
  const std::vector<std::string> commands = commands_of(app);
  if (arguments.empty()) return fmt::format("give a command: {}", fmt::join(commands, ", "));
  const std::string& word = arguments.front();
  if (word.empty() || word.front() == '-' || std::count(commands.begin(), commands.end(), word) > 0) return "";
  const std::string guess = did_you_mean(word, commands);
  if (!guess.empty()) return fmt::format("there is no command '{}'{}", word, guess);
  return fmt::format("there is no command '{}', only {}", word, fmt::join(commands, ", "));
}

}  // namespace

std::string nearest(std::string_view word, const std::vector<std::string>& known) {
  std::string best;
  size_t best_distance = word.size() / 3 + 1;
  for (const std::string& candidate : known) {
    const size_t d = distance(word, candidate);
    if (d >= best_distance) continue;
    best_distance = d;
    best = candidate;
  }
  return best;
}

int run_command_line(CLI::App& app, const std::vector<std::string>& arguments, const int& exit_status) {
  std::vector<std::string> words = arguments;
  if (!words.empty() && words.front() == "help") {  // `help serve` is `serve --help`
    words.erase(words.begin());
    words.emplace_back("--help");
  }
  if (const std::string message = command_error(app, words); !message.empty()) {
    return usage_error(app.get_name(), message);
  }
  std::reverse(words.begin(), words.end());  // as the parser takes them
  try {
    app.parse(words);
  } catch (const CLI::ExtrasError&) {
    const auto [command, name] = reached(app);
    return usage_error(name, unexpected(*command));
  } catch (const CLI::ParseError& error) {
    if (error.get_exit_code() == 0) return app.exit(error);  // --help, --version
    return usage_error(reached(app).second, error.what());
  }
  return exit_status;
}

}  // namespace lorikeet::launcher
