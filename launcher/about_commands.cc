// `lorikeet completion` and `lorikeet man`: the command line, told to shells and to man(1).
#include <algorithm>
#include <fstream>
#include <memory>
#include <string>
#include <vector>

#include "kernels/base/console.h"
#include "launcher/command_tree.h"
#include "launcher/commands.h"
#include "launcher/completion.h"
#include "launcher/exit_status.h"
#include "launcher/man_page.h"
#include "launcher/version.h"

namespace lorikeet::launcher {
namespace {

// The page of the command that the words name.
Result<std::string> page_of(const CLI::App& app, const std::vector<std::string>& words) {
  const CommandInfo tree = command_tree(app);
  const CommandInfo* command = &tree;
  for (const std::string& word : words) {
    const CommandInfo* found = nullptr;
    for (const CommandInfo& below : command->commands) {
      if (below.name == command->name + " " + word) found = &below;
    }
    if (found == nullptr) return fail("'{}' has no command '{}'", command->name, word);
    command = found;
  }
  return man_page(*command, kVersion);
}

// A file for each command: lorikeet-serve.1.
Result<void> write_pages(const CommandInfo& command, const std::string& directory) {
  std::string name = command.name;
  std::replace(name.begin(), name.end(), ' ', '-');
  const std::string path = directory + "/" + name + ".1";
  std::ofstream file(path, std::ios::binary);
  if (!(file << man_page(command, kVersion) << std::flush)) return fail("{}: the file cannot be written", path);
  for (const CommandInfo& below : command.commands) {
    if (auto ok = write_pages(below, directory); !ok) return ok;
  }
  return {};
}

int print(const char* name, const Result<std::string>& text) {
  return exit_status_of(name, text ? write_text(stdout, *text) : tl::unexpected(text.error()));
}

}  // namespace

void add_about_commands(CLI::App& app, int& exit_status) {
  const auto shell = std::make_shared<std::string>();
  CLI::App* completion =
      app.add_subcommand("completion", "Prints a script that lets a shell complete the command line");
  completion->add_option("SHELL", *shell, "bash, zsh or fish")
      ->required()
      ->check(CLI::IsMember({"bash", "zsh", "fish"}));
  completion->footer(
      "Examples:\n"
      "  source <(lorikeet completion bash)      # in ~/.bashrc; the same for zsh\n"
      "  lorikeet completion fish | source       # in ~/.config/fish/config.fish");
  completion->callback(
      [&app, shell, &exit_status] { exit_status = print("completion", completion_script(command_tree(app), *shell)); });
  const auto words = std::make_shared<std::vector<std::string>>();
  CLI::App* man = app.add_subcommand("man", "Prints the man page of a command");
  man->add_option("COMMAND", *words, "Such as serve, or bench serve (default: of lorikeet itself)");
  const auto directory = std::make_shared<std::string>();
  man->add_option("--directory", *directory, "Write the pages of all commands into it instead");
  man->footer("Example:\n  lorikeet man serve | man -l -");
  man->callback([&app, words, directory, &exit_status] {
    if (!directory->empty()) {
      exit_status = exit_status_of("man", write_pages(command_tree(app), *directory));
      return;
    }
    const auto page = page_of(app, *words);
    exit_status = page ? print("man", page) : report_failure("man", page.error(), kWrongCommandLine);
  });
}

}  // namespace lorikeet::launcher
