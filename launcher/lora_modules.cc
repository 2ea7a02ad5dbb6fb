#include "launcher/lora_modules.h"

#include <cstdlib>
#include <filesystem>
#include <nlohmann/json.hpp>
#include <set>

#include "comm/client/adapter_request.h"
#include "comm/client/limits.h"
#include "comm/openai/models.h"

namespace lorikeet::launcher {
namespace {

// What is wrong with `path` as a directory, to stand behind its name in a sentence; empty: nothing.
std::string no_directory(const std::string& path) {
  std::error_code error;
  const auto found = std::filesystem::status(path, error);
  if (std::filesystem::is_directory(found)) return "";
  const bool says_more = error && error != std::errc::no_such_file_or_directory;
  return says_more ? fmt::format("cannot be looked at: {}", error.message()) : "is not a directory";
}

}  // namespace

Result<std::pair<std::string, std::string>> parse_lora_module(const std::string& text) {
  std::string name, path;
  if (!text.empty() && text.front() == '{') {
    const auto json = nlohmann::json::parse(text, nullptr, false);
    if (!json.is_object() || !json.contains("name") || !json["name"].is_string() || !json.contains("path") ||
        !json["path"].is_string()) {
      return fail("--lora-modules {}: the JSON form is {{\"name\": NAME, \"path\": DIR}}", text);
    }
    name = json["name"].get<std::string>();
    path = json["path"].get<std::string>();
  } else {
    const size_t equals = text.find('=');
    if (equals == std::string::npos) return fail("--lora-modules {}: give NAME=DIR", text);
    name = text.substr(0, equals);
    path = text.substr(equals + 1);
  }
  if (name.empty() || path.empty()) return fail("--lora-modules {}: give NAME=DIR", text);
  return std::pair{name, path};
}

Result<void> read_lora_modules(const std::vector<std::string>& texts, actors::ServerOptions& options) {
  const comm::ModelNames base{options.served_model_name, options.more_model_names};
  std::set<std::string> names;
  for (const std::string& text : texts) {
    auto module = parse_lora_module(text);
    if (!module) return tl::unexpected(module.error());
    if (!names.insert(module->first).second) return fail("--lora-modules: the name '{}' is given twice", module->first);
    if (module->first.size() > comm::kMaxAdapterBytes) {
      return fail("--lora-modules: a name of {} bytes, at most {} are allowed", module->first.size(),
                  comm::kMaxAdapterBytes);
    }
    if (!comm::is_adapter_name(module->first)) {
      return fail("--lora-modules: a name that is no UTF-8 or has control characters in it");
    }
    if (base.hold(module->first)) {
      return fail("--lora-modules: '{}' is the name of the base model", module->first);
    }
    if (module->first == comm::kBaseModel)
      return fail("--lora-modules: '-' stands for the base model; give another name");
    if (const std::string why = no_directory(module->second); !why.empty()) {
      return fail("--lora-modules {}: {} {}", module->first, module->second, why);
    }
    options.lora_modules.push_back(*std::move(module));
  }
  return {};
}

Result<void> read_lora_dirs(actors::ServerOptions& options) {
  if (options.runtime_lora_updating && options.lora_dirs.empty()) {
    return fail("--enable-runtime-lora-updating: say with --lora-dir where adapters may be loaded from");
  }
  for (std::string& dir : options.lora_dirs) {
    if (const std::string why = no_directory(dir); !why.empty()) return fail("--lora-dir {}: it {}", dir, why);
    dir = std::filesystem::absolute(dir).lexically_normal().string();
  }
  // It may be set for all servers of a host, so unlike the flag it does not ask for a directory.
  const char* allowed = std::getenv("VLLM_ALLOW_RUNTIME_LORA_UPDATING");
  const std::string value = allowed == nullptr ? "" : allowed;
  options.runtime_lora_updating |= value == "1" || value == "true" || value == "True";
  return {};
}

}  // namespace lorikeet::launcher
