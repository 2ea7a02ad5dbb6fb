#include "model/tokenizer/tokenizer_config.h"

#include <algorithm>
#include <system_error>
#include <utility>

#include "kernels/base/json_nesting.h"
#include "model/config/read_file.h"
#include "model/tokenizer/json_values.h"

namespace lorikeet::model {
namespace {

using nlohmann::json;

constexpr size_t kMaxConfigDepth = 64;  // of brackets

// The object in a file; null where there is no such file.
Result<json> read_object(const std::filesystem::path& path) {
  std::error_code error;
  if (!std::filesystem::exists(path, error)) return json();
  auto text = read_file(path, kMaxTextFile);
  if (!text) return tl::unexpected(text.error());
  if (nests_deeper(*text, kMaxConfigDepth))
    return fail("{}: nested deeper than {} levels", path.string(), kMaxConfigDepth);
  json object = json::parse(*text, nullptr, false);
  if (!object.is_object()) return fail("{}: not a JSON object", path.string());
  return object;
}

// A token, written as a string or as an AddedToken; empty where it is neither.
std::string token_text(const json& token) {
  const json& text = token.is_object() ? member(token, "content") : token;
  return text.is_string() ? text.get<std::string>() : std::string();
}

bool names_a_token(const std::string& key) {
  return key.ends_with("_token") && !key.starts_with("add_");
}

void take_tokens(const json& object, TokenizerConfig* config) {
  for (const auto& [key, value] : object.items()) {
    if (names_a_token(key)) {
      const std::string text = token_text(value);
      if (!text.empty()) config->named_tokens.emplace(key, text);
    } else if (key == "additional_special_tokens" || key == "extra_special_tokens") {
      for (const json& token : value) {
        if (const std::string text = token_text(token); !text.empty()) config->special_tokens.push_back(text);
      }
    }
  }
}

Result<std::optional<bool>> read_switch(const json& object, const char* key) {
  const json& value = member(object, key);
  if (value.is_null()) return std::optional<bool>();
  if (!value.is_boolean()) return fail("{} is {}, not a boolean", key, brief(value));
  return std::optional<bool>(value.get<bool>());
}

Result<void> check_settings(const json& object, bool from_parts) {
  const json& type = member(object, "tokenizer_class");
  if (from_parts && !type.is_null() && type != "Qwen2Tokenizer" && type != "Qwen2TokenizerFast") {
    return fail("tokenizer_class is {}; only Qwen2Tokenizer is served from vocab.json and merges.txt", brief(type));
  }
  // clean_up_tokenization_spaces is not among these: transformers does not apply it to BPE.
  for (const char* key : {"add_prefix_space", "split_special_tokens",
                          "clean_up_tokenization_spaces_for_bpe_even_though_it_will_corrupt_output"}) {
    if (!is_off(member(object, key))) return fail("{} is {}; only false is served", key, brief(member(object, key)));
  }
  return {};
}

Result<void> take_config(const json& object, bool from_parts, TokenizerConfig* config) {
  if (auto ok = check_settings(object, from_parts); !ok) return ok;
  for (const auto& [key, to] :
       {std::pair{"add_bos_token", &config->add_bos_token}, std::pair{"add_eos_token", &config->add_eos_token}}) {
    auto value = read_switch(object, key);
    if (!value) return tl::unexpected(value.error());
    *to = *value;
  }
  take_tokens(object, config);
  return {};
}

}  // namespace

Result<TokenizerConfig> read_tokenizer_config(const std::filesystem::path& dir, bool from_parts) {
  TokenizerConfig config;
  const auto path = dir / "tokenizer_config.json";
  auto object = read_object(path);
  if (!object) return tl::unexpected(object.error());
  if (!object->is_null()) {
    config.exists = true;
    config.json = *std::move(object);
    if (auto ok = take_config(config.json, from_parts, &config); !ok) {
      return fail("{}: {}", path.string(), ok.error().message);
    }
  }
  // What the first file names counts; this one is older and fills in what it leaves open.
  auto map = read_object(dir / "special_tokens_map.json");
  if (!map) return tl::unexpected(map.error());
  if (!map->is_null()) take_tokens(*map, &config);
  for (const auto& [key, text] : config.named_tokens) config.special_tokens.push_back(text);
  if (!member(config.json, "added_tokens_decoder").is_object()) {
    auto added = read_object(dir / "added_tokens.json");
    if (!added) return tl::unexpected(added.error());
    config.added_tokens = *std::move(added);
  }
  return config;
}

}  // namespace lorikeet::model
