#include "launcher/man_page.h"

#include <fmt/format.h>

#include <algorithm>
#include <cctype>
#include <string_view>
#include <vector>

namespace lorikeet::launcher {
namespace {

// Text in which nothing is a request or an escape of roff.
std::string plain(std::string_view text) {
  std::string out;
  for (const char c : text) {
    const bool begins_line = out.empty() || out.back() == '\n';
    if (begins_line && (c == '.' || c == '\'')) out += "\\&";
    if (c == '\\') {
      out += "\\e";
    } else if (c == '-') {
      out += "\\-";
    } else {
      out += c;
    }
  }
  return out;
}

std::string hyphenated(std::string name) {
  std::replace(name.begin(), name.end(), ' ', '-');
  return name;
}

std::string upper(std::string text) {
  for (char& c : text) c = static_cast<char>(std::toupper(static_cast<unsigned char>(c)));
  return text;
}

std::string flag_text(const FlagInfo& flag) {
  std::string out = ".TP\n";
  for (size_t i = 0; i < flag.names.size(); ++i) {
    out += fmt::format("{}\\fB{}\\fR", i == 0 ? "" : ", ", plain(flag.names[i]));
  }
  if (flag.names.empty()) {
    out += fmt::format("\\fI{}\\fR", plain(flag.positional));
  } else if (!flag.value.empty()) {
    out += fmt::format(" \\fI{}\\fR{}", plain(flag.value), flag.several ? " ..." : "");
  }
  out += "\n" + plain(flag.description);
  for (size_t i = 0; i < flag.choices.size(); ++i) {
    out += (i == 0 ? ": " : ", ") + ("\\fB" + plain(flag.choices[i]) + "\\fR");
  }
  if (!flag.default_value.empty()) out += fmt::format(" (default: {})", plain(flag.default_value));
  return out + "\n";
}

std::string synopsis(const CommandInfo& command) {
  std::string out = fmt::format("\\fB{}\\fR", plain(command.name));
  if (!command.commands.empty()) return out + " \\fICOMMAND\\fR ...\n";
  out += " [\\fIOPTIONS\\fR]";
  for (const FlagInfo& flag : command.flags) {
    if (!flag.positional.empty()) {
      out += fmt::format(" \\fI{}\\fR{}", plain(flag.positional), flag.several ? " ..." : "");
    }
  }
  return out + "\n";
}

constexpr std::string_view kExitStatus = R"(.SH EXIT STATUS
.TP
\fB0\fR
done
.TP
\fB1\fR
failed; the reason is on standard error
.TP
\fB2\fR
the command line is wrong
.TP
\fB130\fR, \fB143\fR
ended by SIGINT, by SIGTERM
)";

}  // namespace

std::string man_page(const CommandInfo& command, const std::string& version) {
  std::string out =
      fmt::format(".TH {} 1 \"\" \"lorikeet {}\"\n", plain(upper(hyphenated(command.name))), plain(version));
  out += fmt::format(".SH NAME\n{} \\- {}\n", plain(hyphenated(command.name)),
                     plain(command.description.substr(0, command.description.find('\n'))));
  out += ".SH SYNOPSIS\n" + synopsis(command);
  out += fmt::format(".SH DESCRIPTION\n{}\n", plain(command.description));
  if (!command.commands.empty()) {
    out += ".SH COMMANDS\n";
    for (const CommandInfo& below : command.commands) {
      out += fmt::format(".TP\n\\fB{}\\fR(1)\n{}\n", plain(hyphenated(below.name)), plain(below.description));
    }
  }
  std::vector<std::string> groups;
  for (const FlagInfo& flag : command.flags) {
    if (std::find(groups.begin(), groups.end(), flag.group) == groups.end()) groups.push_back(flag.group);
  }
  for (const std::string& group : groups) {
    out += fmt::format(".SH {}\n", plain(upper(group)));
    for (const FlagInfo& flag : command.flags) {
      if (flag.group == group) out += flag_text(flag);
    }
  }
  if (!command.footer.empty()) out += fmt::format(".SH NOTES\n.nf\n{}\n.fi\n", plain(command.footer));
  return out + std::string(kExitStatus);
}

}  // namespace lorikeet::launcher
