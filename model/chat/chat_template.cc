#include "model/chat/chat_template.h"

#include <algorithm>
#include <array>
#include <nlohmann/json.hpp>
#include <system_error>
#include <utility>

#include "model/chat/template_fingerprint.h"
#include "model/config/read_file.h"

namespace lorikeet::model {
namespace {

using nlohmann::json;

constexpr int64_t kMaxFile = 16 << 20;

struct NamedTemplate {
  std::string_view name;
  ChatFormat format;
  std::string_view default_system;
};

constexpr std::array<NamedTemplate, 7> kNamed = {{
    {"qwen", ChatFormat::qwen, "You are a helpful assistant."},
    {"qwen1.5", ChatFormat::chatml, "You are a helpful assistant"},
    {"qwen2", ChatFormat::chatml, "You are a helpful assistant."},
    {"qwen2.5", ChatFormat::qwen2_5, "You are Qwen, created by Alibaba Cloud. You are a helpful assistant."},
    {"qwen3", ChatFormat::qwen3, ""},
    {"qwen3-nonthinking", ChatFormat::qwen3_nonthinking, ""},
    {"chatml", ChatFormat::chatml, ""},
}};

// Templates as published, by fingerprint; the default system prompt is read from the template itself.
struct KnownTemplate {
  std::string_view digest;
  std::string_view name;
  ChatFormat format;
};

constexpr std::array<KnownTemplate, 9> kKnown = {{
    {"66611da9377ab3b49c0092392ba2e3a9ad4d7f0b12dbd22f6e7383a8ee457c30", "qwen2", ChatFormat::chatml},
    {"7d5d5616c9dbf5a14cb38ac3f480a3bac4980e89235d818fb460b079cbc403c5", "qwen1.5", ChatFormat::chatml_open_end},
    {"9e7a973b57750014ad427b4e9e4c3c1a9264862fe4fa7879a9819e243d6bfc16", "chatml", ChatFormat::chatml},
    {"a2ef9bd493df8d740695e1bff90b71cbb42ad70dcf2b6f6594b3d5c4d30da5f2", "chatml", ChatFormat::chatml_open_end},
    {"0a9028a1888640dc04e235f8f57c7d0f5f5da3d40436c81b409dce1bdb23690f", "qwen2.5", ChatFormat::qwen2_5},
    {"1e73da486c2182908c3f52b44c704260ef7899b0723e482a9725a388033250b4", "qwen2.5", ChatFormat::qwen2_5_braces},
    {"75dcdae0ea90a5e87df54b748b0ad3697b3243fac73191f76e48f7b404d264eb", "qwen3", ChatFormat::qwen3},
    {"b3a2cc89377ff64da633325f667a864228f0e239b090a845840478b20ceeb01f", "qwen3", ChatFormat::qwen3},
    {"705be44a653c04d01970f444b7f225ad372a44069502834ca23dfdefcac1c4b6", "qwen3-nonthinking",
     ChatFormat::qwen3_nonthinking},
}};

std::string known_names() {
  std::string names;
  for (const NamedTemplate& named : kNamed) names += fmt::format("{}{}", names.empty() ? "" : ", ", named.name);
  return names;
}

// tokenizer_config.json's chat_template: a string, or a list of {name, template} of which "default" is meant.
Result<std::string> template_of_config(const std::filesystem::path& path) {
  auto text = read_file(path, kMaxFile);
  if (!text) return tl::unexpected(text.error());
  const json config = json::parse(*text, nullptr, false);
  if (!config.is_object()) return fail("{}: not a JSON object", path.string());
  const auto found = config.find("chat_template");
  if (found == config.end() || found->is_null()) return std::string();
  if (found->is_string()) return found->get<std::string>();
  if (found->is_array()) {
    for (const json& entry : *found) {
      if (!entry.is_object() || !entry.contains("template") || !entry["template"].is_string()) continue;
      if (entry.contains("name") && entry["name"] == "default") return entry["template"].get<std::string>();
    }
    return fail("{}: chat_template is a list without one named default", path.string());
  }
  return fail("{}: chat_template is neither a string nor a list", path.string());
}

}  // namespace

ChatTemplate::ChatTemplate(std::string_view name, ChatFormat format, std::string default_system)
    : name_(name), format_(format), default_system_(std::move(default_system)) {}

Result<ChatTemplate> ChatTemplate::named(std::string_view name) {
  for (const NamedTemplate& known : kNamed) {
    if (known.name == name) return ChatTemplate(known.name, known.format, std::string(known.default_system));
  }
  return fail("no chat template is named {}; known are {}", name, known_names());
}

Result<ChatTemplate> ChatTemplate::recognise(std::string_view source, const std::string& where) {
  auto fingerprint = fingerprint_template(source);
  if (!fingerprint) return fail("{}: the chat template cannot be read: {}", where, fingerprint.error().message);
  for (const KnownTemplate& known : kKnown) {
    if (known.digest == fingerprint->digest) return ChatTemplate(known.name, known.format, fingerprint->default_system);
  }
  return fail("{}: its chat template (fingerprint {}) is none of those known here; choose one with --chat-template: {}",
              where, fingerprint->digest.substr(0, 16), known_names());
}

Result<ChatTemplate> ChatTemplate::find(const std::filesystem::path& dir, std::string_view chosen) {
  std::error_code error;
  if (!chosen.empty()) {
    if (!std::filesystem::exists(chosen, error)) {
      auto by_name = named(chosen);
      if (!by_name) return fail("--chat-template: {}, and no such file exists", by_name.error().message);
      return by_name;
    }
    if (auto by_name = named(chosen)) return by_name;  // a file that happens to have a template's name
    auto source = read_file(chosen, kMaxFile);
    if (!source) return fail("--chat-template: {}", source.error().message);
    return recognise(*source, std::string(chosen));
  }
  const auto file = dir / "chat_template.jinja", config = dir / "tokenizer_config.json";
  if (std::filesystem::exists(file, error)) {
    auto source = read_file(file, kMaxFile);
    if (!source) return tl::unexpected(source.error());
    return recognise(*source, file.string());
  }
  if (std::filesystem::exists(config, error)) {
    auto source = template_of_config(config);
    if (!source) return tl::unexpected(source.error());
    if (!source->empty()) return recognise(*source, config.string());
  }
  if (std::filesystem::exists(dir / "qwen.tiktoken", error)) return named("qwen");
  return fail("{}: there is no chat template; choose one with --chat-template: {}", dir.string(), known_names());
}

Result<ChatTemplate> ChatTemplate::load(const std::filesystem::path& dir, const Tokenizer& tokenizer,
                                        std::string_view chosen) {
  auto found = find(dir, chosen);
  if (!found) return found;
  for (const char* control : {"<|im_start|>", "<|im_end|>"}) {
    if (tokenizer.id_of(control) < 0) {
      return fail("{}: the chat template \"{}\" needs the token {}, which the tokenizer lacks", dir.string(),
                  found->name(), control);
    }
  }
  return found;
}

Result<std::vector<int32_t>> ChatTemplate::render(const std::vector<ChatMessage>& messages, const Tokenizer& tokenizer,
                                                  const ChatOptions& options) const {
  auto parts = render_chat(format_, default_system_, messages, options);
  if (!parts) return tl::unexpected(parts.error());
  std::vector<TextSegment> segments;
  segments.reserve(parts->size());
  for (const PromptPart& part : *parts) segments.push_back({part.text, part.own_words, part.apart});
  return tokenizer.encode(segments);
}

Result<std::string> ChatTemplate::render_text(const std::vector<ChatMessage>& messages,
                                              const ChatOptions& options) const {
  auto parts = render_chat(format_, default_system_, messages, options);
  if (!parts) return tl::unexpected(parts.error());
  std::string text;
  for (const PromptPart& part : *parts) text += part.text;
  return text;
}

bool ChatTemplate::has_tools() const {
  return format_ != ChatFormat::qwen && format_ != ChatFormat::chatml && format_ != ChatFormat::chatml_open_end;
}

}  // namespace lorikeet::model
