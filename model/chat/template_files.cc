#include "model/chat/template_files.h"

#include <nlohmann/json.hpp>
#include <system_error>

#include "kernels/base/json_nesting.h"
#include "model/config/read_file.h"

namespace lorikeet::model {
namespace {

using nlohmann::json;

constexpr size_t kMaxTemplates = 64;
constexpr size_t kMaxFileDepth = 64;  // of the JSON around them

// The member chat_template of a JSON file.
Result<std::map<std::string, std::string>> templates_of_json(const std::filesystem::path& path) {
  auto text = read_file(path, kMaxTextFile);
  if (!text) return tl::unexpected(text.error());
  if (nests_deeper(*text, kMaxFileDepth)) return fail("{}: nested deeper than {} levels", path.string(), kMaxFileDepth);
  const json object = json::parse(*text, nullptr, false);
  if (!object.is_object()) return fail("{}: not a JSON object", path.string());
  std::map<std::string, std::string> sources;
  const auto found = object.find("chat_template");
  if (found == object.end() || found->is_null()) return sources;
  if (found->is_string()) {
    sources["default"] = found->get<std::string>();
    return sources;
  }
  if (!found->is_structured()) return fail("{}: chat_template is no string, list or object", path.string());
  if (found->size() > kMaxTemplates) return fail("{}: more than {} chat templates", path.string(), kMaxTemplates);
  for (const auto& [key, entry] : found->items()) {
    const json name = found->is_object() ? json(key) : entry.is_object() ? entry.value("name", json()) : json();
    const json source = found->is_object() ? entry : entry.is_object() ? entry.value("template", json()) : json();
    if (!name.is_string() || !source.is_string())
      return fail("{}: chat_template has an entry that is no name and template", path.string());
    sources[name.get<std::string>()] = source.get<std::string>();
  }
  if (!sources.contains("default")) return fail("{}: chat_template has none named default", path.string());
  return sources;
}

Result<void> add_file(const std::filesystem::path& path, const std::string& name, TemplateFiles* files) {
  auto source = read_file(path, kMaxTextFile);
  if (!source) return tl::unexpected(source.error());
  files->sources[name] = *std::move(source);
  return {};
}

}  // namespace

Result<TemplateFiles> read_template_files(const std::filesystem::path& dir) {
  TemplateFiles files;
  std::error_code error;
  const auto file = dir / "chat_template.jinja", additional = dir / "additional_chat_templates";
  if (std::filesystem::exists(file, error)) {
    files.where = file.string();
    if (auto ok = add_file(file, "default", &files); !ok) return tl::unexpected(ok.error());
  }
  if (std::filesystem::is_directory(additional, error)) {
    for (const auto& entry : std::filesystem::directory_iterator(additional, error)) {
      if (entry.path().extension() != ".jinja") continue;
      if (files.sources.size() == kMaxTemplates) return fail("{}: too many chat templates", additional.string());
      if (auto ok = add_file(entry.path(), entry.path().stem().string(), &files); !ok)
        return tl::unexpected(ok.error());
    }
  }
  if (files.sources.contains("default")) return files;
  for (const char* name : {"chat_template.json", "tokenizer_config.json"}) {
    const auto path = dir / name;
    if (!std::filesystem::exists(path, error)) continue;
    auto sources = templates_of_json(path);
    if (!sources) return tl::unexpected(sources.error());
    if (sources->empty()) continue;
    files.where = path.string();
    files.sources.merge(*sources);
    break;
  }
  return files;
}

}  // namespace lorikeet::model
