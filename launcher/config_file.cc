#include "launcher/config_file.h"

#include <fmt/format.h>
#include <yaml-cpp/yaml.h>

#include <algorithm>
#include <cmath>
#include <filesystem>
#include <fstream>
#include <nlohmann/json.hpp>
#include <optional>
#include <set>

#include "kernels/base/nearest_word.h"

namespace lorikeet::launcher {
namespace {

constexpr const char* kFlag = "--config";
constexpr size_t kMaxBytes = 1 << 20;
constexpr int kMaxDepth = 16;  // of maps and lists in each other

// Takes --config and its value out of the arguments.
Result<std::optional<std::string>> take_path(std::vector<std::string>& arguments) {
  const std::string with_value = std::string(kFlag) + "=";
  for (size_t i = 0; i < arguments.size() && arguments[i] != "--"; ++i) {
    const bool joined = arguments[i].rfind(with_value, 0) == 0;
    if (!joined && arguments[i] != kFlag) continue;
    if (!joined && i + 1 == arguments.size()) return fail("--config: give a file");
    std::string path = joined ? arguments[i].substr(with_value.size()) : arguments[i + 1];
    const auto begin = arguments.begin() + static_cast<std::ptrdiff_t>(i);
    arguments.erase(begin, begin + (joined ? 1 : 2));
    return path;
  }
  return std::optional<std::string>();
}

Result<std::string> read_whole(const std::string& path) {
  std::ifstream file(path, std::ios::binary);
  if (!file || std::filesystem::is_directory(path)) return fail("--config {}: the file cannot be read", path);
  std::string text(kMaxBytes + 1, '\0');
  file.read(text.data(), static_cast<std::streamsize>(text.size()));
  text.resize(static_cast<size_t>(file.gcount()));
  if (text.size() > kMaxBytes) return fail("--config {}: more than {} bytes", path, kMaxBytes);
  return text;
}

const CLI::Option* option_of(const CLI::App& command, const std::string& name) {
  for (const CLI::Option* option : command.get_options()) {
    const auto& names = option->get_lnames();
    if (std::find(names.begin(), names.end(), name) != names.end()) return option;
  }
  return nullptr;
}

bool is_given(const CLI::Option& option, const std::vector<std::string>& arguments) {
  const auto is_name = [&](const std::string& argument) {
    for (const std::string& name : option.get_lnames()) {
      const std::string flag = "--" + name;
      if (argument == flag || argument.rfind(flag + "=", 0) == 0) return true;
    }
    for (const std::string& name : option.get_snames()) {
      if (argument.rfind("-" + name, 0) == 0 && argument.rfind("--", 0) != 0) return true;
    }
    return false;
  };
  if (std::any_of(arguments.begin(), arguments.end(), is_name)) return true;
  // A positional argument stands first, as people write it.
  return !option.get_name(true).empty() && option.get_name(true).front() != '-' && !arguments.empty() &&
         arguments.front().rfind('-', 0) != 0;
}

// What a scalar is: text where it is quoted or tagged so, or all are to be (adapters' names may be numbers). A letter alone
// is text, as in Python, and so is what JSON has no number for.
nlohmann::ordered_json json_of_scalar(const YAML::Node& node, bool as_text) {
  if (as_text || node.Tag() == "!" || node.Tag() == "tag:yaml.org,2002:str") return node.Scalar();
  bool truth = false;
  int64_t integer = 0;
  double number = 0;
  if (node.Scalar().size() > 1 && YAML::convert<bool>::decode(node, truth)) return truth;
  if (YAML::convert<int64_t>::decode(node, integer)) return integer;
  if (YAML::convert<double>::decode(node, number) && std::isfinite(number)) return number;
  return node.Scalar();
}

nlohmann::ordered_json json_of(const YAML::Node& node, bool as_text, int depth = 0) {
  if (depth > kMaxDepth) throw YAML::RepresentationException(node.Mark(), "nested too deeply");
  if (node.IsScalar()) return json_of_scalar(node, as_text);
  if (node.IsNull()) return nullptr;
  auto json = node.IsMap() ? nlohmann::ordered_json::object() : nlohmann::ordered_json::array();
  for (const auto& entry : node) {
    if (node.IsMap()) {
      json[entry.first.as<std::string>()] = json_of(entry.second, as_text, depth + 1);
    } else {
      json.push_back(json_of(entry, as_text, depth + 1));
    }
  }
  return json;
}

// A value as one argument; a map as JSON, which some flags take.
std::string argument_of(const YAML::Node& node, const std::string& name) {
  return node.IsScalar() ? node.Scalar() : json_of(node, name == "lora-modules").dump();
}

// As the command line takes it behind a flag's name, and YAML's own words.
std::optional<bool> truth_of(const YAML::Node& node) {
  if (!node.IsScalar()) return std::nullopt;
  if (node.Scalar() == "1" || node.Scalar() == "0") return node.Scalar() == "1";
  bool value = false;
  return YAML::convert<bool>::decode(node, value) ? std::optional(value) : std::nullopt;
}

// The flag's arguments; none where it is left out.
Result<std::vector<std::string>> arguments_of(const CLI::Option& option, const std::string& name,
                                              const YAML::Node& value) {
  const std::string flag = "--" + name;
  if (option.get_items_expected_max() <= 0) {
    const auto truth = truth_of(value);
    if (!truth) return fail("'{}' takes no value but true and false", name);
    return std::vector<std::string>{*truth ? flag : flag + "=false"};
  }
  std::vector<std::string> arguments;
  if (value.IsNull()) return arguments;
  arguments.push_back(flag);
  if (!value.IsSequence()) {
    arguments.push_back(argument_of(value, name));
  } else {
    for (const YAML::Node& element : value) arguments.push_back(argument_of(element, name));
  }
  return arguments;
}

Result<std::vector<std::string>> flags_of(const CLI::App& command, const YAML::Node& root, const std::string& path,
                                          const std::vector<std::string>& given) {
  std::vector<std::string> flags;
  if (root.IsNull()) return flags;
  if (!root.IsMap()) return fail("--config {}: it is not a map of flags to values", path);
  std::set<const CLI::Option*> seen;
  for (const auto& entry : root) {
    std::string name = entry.first.as<std::string>();
    std::replace(name.begin(), name.end(), '_', '-');
    const CLI::Option* option = option_of(command, name);
    if (option == nullptr || name == "config" || name == "help") {
      std::vector<std::string> known;
      for (const CLI::Option* other : command.get_options()) {
        if (other->get_group().empty() || other->get_name() == kFlag) continue;
        known.insert(known.end(), other->get_lnames().begin(), other->get_lnames().end());
      }
      const std::string guess = nearest_word(name.substr(0, 64), known);
      return fail("--config {}, line {}: there is no flag '{}'{}", path, entry.first.Mark().line + 1, name,
                  guess.empty() ? "" : "; did you mean '" + guess + "'?");
    }
    const auto wrong = [&](const std::string& why) {
      return fail("--config {}, line {}: {}", path, entry.first.Mark().line + 1, why);
    };
    if (!seen.insert(option).second) return wrong(fmt::format("the flag '{}' is given twice", name));
    const auto arguments = arguments_of(*option, name, entry.second);
    if (!arguments) return wrong(arguments.error().message);
    if (is_given(*option, given)) continue;
    flags.insert(flags.end(), arguments->begin(), arguments->end());
  }
  return flags;
}

}  // namespace

void add_config_flag(CLI::App& command) {
  command.add_option(kFlag, "File of flags in YAML (max-model-len: 8192); what the command line says wins")
      ->type_name("FILE");
}

Result<std::vector<std::string>> expand_config_file(const CLI::App& command, std::vector<std::string> arguments) {
  auto path = take_path(arguments);
  if (!path) return tl::unexpected(path.error());
  if (!*path) return arguments;
  const auto text = read_whole(**path);
  if (!text) return tl::unexpected(text.error());
  try {
    const auto flags = flags_of(command, YAML::Load(*text), **path, arguments);
    if (!flags) return tl::unexpected(flags.error());
    arguments.insert(arguments.end(), flags->begin(), flags->end());
    return arguments;
  } catch (const YAML::Exception& error) {  // the library's only way to say it
    return fail("--config {}, line {}: {}", **path, error.mark.line + 1, error.msg);
  } catch (const nlohmann::json::exception&) {  // the same: a map is written as JSON
    return fail("--config {}: a map in it is not UTF-8", **path);
  }
}

}  // namespace lorikeet::launcher
