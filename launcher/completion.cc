#include "launcher/completion.h"

#include <fmt/format.h>
#include <fmt/ranges.h>

#include <string_view>

namespace lorikeet::launcher {
namespace {

// Without the program's own name: "bench serve".
std::string path_of(const CommandInfo& command) {
  const size_t space = command.name.find(' ');
  return space == std::string::npos ? "" : command.name.substr(space + 1);
}

std::vector<const CommandInfo*> all_commands(const CommandInfo& root) {
  std::vector<const CommandInfo*> commands = {&root};
  for (size_t i = 0; i < commands.size(); ++i) {
    for (const CommandInfo& command : commands[i]->commands) commands.push_back(&command);
  }
  return commands;
}

std::string last_word(const std::string& name) {
  return name.substr(name.rfind(' ') + 1);
}

std::string escaped(std::string_view text, std::string_view special) {
  std::string out;
  for (const char c : text) {
    if (special.find(c) != std::string_view::npos) out += '\\';
    out += c == '\n' ? ' ' : c;
  }
  return out;
}

// In single quotes of bash and zsh.
std::string in_quotes(std::string_view text) {
  std::string out = "'";
  for (const char c : text) out += c == '\'' ? std::string("'\\''") : std::string(1, c);
  return out + "'";
}

std::string bash_words(const CommandInfo& command) {
  std::vector<std::string> words;
  for (const CommandInfo& below : command.commands) words.push_back(last_word(below.name));
  for (const FlagInfo& flag : command.flags) {
    words.insert(words.end(), flag.names.begin(), flag.names.end());
  }
  return fmt::format("{}", fmt::join(words, " "));
}

std::string bash_script(const CommandInfo& root) {
  std::string commands, values;
  for (const CommandInfo* command : all_commands(root)) {
    commands += fmt::format("    {}) words={}{} ;;\n", in_quotes(path_of(*command)), in_quotes(bash_words(*command)),
                            command->commands.empty() ? "" : " nested=1");
    for (const FlagInfo& flag : command->flags) {
      if (flag.choices.empty() || flag.names.empty()) continue;
      std::string patterns;
      for (const std::string& name : flag.names) {
        patterns += (patterns.empty() ? "" : "|") + in_quotes(path_of(*command) + " " + name);
      }
      values +=
          fmt::format("    {}) values={} ;;\n", patterns, in_quotes(fmt::format("{}", fmt::join(flag.choices, " "))));
    }
  }
  std::string known;  // the commands, as patterns
  for (const CommandInfo* command : all_commands(root)) {
    if (command != &root) known += (known.empty() ? "" : "|") + in_quotes(path_of(*command));
  }
  return fmt::format(R"(# Completion of lorikeet's command line for bash:  source <(lorikeet completion bash)
_lorikeet() {{
  local word=${{COMP_WORDS[COMP_CWORD]}} previous=${{COMP_WORDS[COMP_CWORD-1]}} command= words= values= nested= i
  for ((i = 1; i < COMP_CWORD; ++i)); do
    case "${{command:+$command }}${{COMP_WORDS[i]}}" in
      {}) command="${{command:+$command }}${{COMP_WORDS[i]}}" ;;
      *) break ;;
    esac
  done
  case "$command $previous" in
{}  esac
  if [[ -n $values ]]; then
    COMPREPLY=($(compgen -W "$values" -- "$word"))
    return
  fi
  case "$command" in
{}  esac
  if [[ $word == -* || -n $nested ]]; then
    COMPREPLY=($(compgen -W "$words" -- "$word"))
  fi
}}
complete -o default -F _lorikeet lorikeet
)",
                     known, values, commands);
}

std::string zsh_flag(const FlagInfo& flag) {
  std::string what;  // what follows its name
  if (!flag.value.empty()) {
    what = ":" + escaped(flag.value, ":[]\\");
    what += flag.choices.empty() ? ":_files" : fmt::format(":({})", fmt::join(flag.choices, " "));
  }
  std::string lines;
  for (const std::string& name : flag.names) {
    lines += fmt::format("        {} \\\n",
                         in_quotes(fmt::format("*{}[{}]{}", name, escaped(flag.description, ":[]\\"), what)));
  }
  return lines;
}

std::string zsh_script(const CommandInfo& root) {
  std::string cases;
  for (const CommandInfo* command : all_commands(root)) {
    std::string body;
    if (!command->commands.empty()) {
      std::string names;
      for (const CommandInfo& below : command->commands) {
        names += "\n        " + in_quotes(last_word(below.name) + ":" + escaped(below.description, ":\\"));
      }
      body = fmt::format("      local -a commands=({})\n      _describe command commands\n", names);
    } else {
      std::string flags;
      for (const FlagInfo& flag : command->flags) {
        flags += zsh_flag(flag);
      }
      body = fmt::format("      _arguments -s \\\n{}        '*:file:_files'\n", flags);
    }
    cases += fmt::format("    {})\n{}      ;;\n", in_quotes(path_of(*command)), body);
  }
  std::string known;
  for (const CommandInfo* command : all_commands(root)) {
    if (command != &root) known += (known.empty() ? "" : "|") + in_quotes(path_of(*command));
  }
  return fmt::format(R"(#compdef lorikeet
# Completion of lorikeet's command line for zsh:  source <(lorikeet completion zsh)
_lorikeet() {{
  local command= i
  for ((i = 2; i < CURRENT; ++i)); do
    case "${{command:+$command }}${{words[i]}}" in
      ({}) command="${{command:+$command }}${{words[i]}}" ;;
      (*) break ;;
    esac
  done
  case "$command" in
{}  esac
}}
if [[ "$funcstack[1]" == _lorikeet ]]; then  # loaded as a file of zsh's own
  _lorikeet "$@"
else
  compdef _lorikeet lorikeet
fi
)",
                     known, cases);
}

// When its flags are offered. The words may come in any place, so that one that is also a command below another
// ("serve" and "bench serve") is not where that other one is.
std::string fish_condition(const CommandInfo& root, const CommandInfo& command) {
  if (&command == &root) return "__fish_use_subcommand";
  const std::string path = path_of(command);
  std::string condition;
  const size_t space = path.find(' ');
  if (space != std::string::npos) condition = "__fish_seen_subcommand_from " + path.substr(0, space) + "; and ";
  condition += "__fish_seen_subcommand_from " + last_word(path);
  for (const CommandInfo* other : all_commands(root)) {
    const std::string of_other = path_of(*other);
    if (space == std::string::npos && of_other.find(' ') != std::string::npos && last_word(of_other) == path) {
      condition += "; and not __fish_seen_subcommand_from " + of_other.substr(0, of_other.find(' '));
    }
  }
  return condition;
}

std::string fish_script(const CommandInfo& root) {
  std::string out = "# Completion of lorikeet's command line for fish:  lorikeet completion fish | source\n";
  const auto fish_quotes = [](std::string_view text) { return "'" + escaped(text, "'\\") + "'"; };
  for (const CommandInfo* command : all_commands(root)) {
    const std::string condition = fish_condition(root, *command);
    std::string below_alone;  // once one is chosen, the others are no choice
    for (const CommandInfo& below : command->commands) below_alone += " " + last_word(below.name);
    if (command != &root) below_alone = condition + "; and not __fish_seen_subcommand_from" + below_alone;
    for (const CommandInfo& below : command->commands) {
      out += fmt::format("complete -c lorikeet -n {} -f -a {} -d {}\n",
                         fish_quotes(command == &root ? condition : below_alone), last_word(below.name),
                         fish_quotes(below.description));
    }
    for (const FlagInfo& flag : command->flags) {
      if (flag.names.empty()) continue;
      std::string names;
      for (const std::string& name : flag.names) {
        names += name.rfind("--", 0) == 0 ? " -l " + name.substr(2) : " -s " + name.substr(1);
      }
      std::string value = flag.value.empty() ? "" : " -r";
      if (!flag.choices.empty()) value += " -f -a " + fish_quotes(fmt::format("{}", fmt::join(flag.choices, " ")));
      out += fmt::format("complete -c lorikeet -n {}{}{} -d {}\n", fish_quotes(condition), names, value,
                         fish_quotes(flag.description));
    }
  }
  return out;
}

}  // namespace

Result<std::string> completion_script(const CommandInfo& lorikeet, const std::string& shell) {
  if (shell == "bash") return bash_script(lorikeet);
  if (shell == "zsh") return zsh_script(lorikeet);
  if (shell == "fish") return fish_script(lorikeet);
  return fail("there is no completion for {}, only for bash, zsh and fish", shell);
}

}  // namespace lorikeet::launcher
