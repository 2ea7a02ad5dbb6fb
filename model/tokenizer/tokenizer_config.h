// What tokenizer_config.json, special_tokens_map.json and added_tokens.json say beside the vocabulary: which tokens
// mark beginnings and ends, and settings that change ids. Source: transformers' tokenization_utils_base.py
// (_from_pretrained) and tokenization_utils_tokenizers.py.
#pragma once

#include <filesystem>
#include <map>
#include <nlohmann/json.hpp>
#include <optional>
#include <string>
#include <vector>

#include "kernels/base/error.h"

namespace lorikeet::model {

struct TokenizerConfig {
  bool exists = false;                              // there is a tokenizer_config.json
  nlohmann::json json = nlohmann::json::object();   // its content
  std::map<std::string, std::string> named_tokens;  // "eos_token" -> "<|im_end|>", and bos, pad, unk, ...
  std::vector<std::string> special_tokens;          // all that are special by these files, the named ones included
  std::optional<bool> add_bos_token, add_eos_token;
  nlohmann::json added_tokens;  // of added_tokens.json, {"token": id}; null where it is absent or does not count
};

// A setting that would change ids and is not served is refused by its name. Files that are absent say nothing.
// from_parts: the vocabulary is in files that only tokenizer_class tells how to use (vocab.json and merges.txt).
Result<TokenizerConfig> read_tokenizer_config(const std::filesystem::path& dir, bool from_parts);

}  // namespace lorikeet::model
