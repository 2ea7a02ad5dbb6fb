// Reads tokenizer.json and vocab.json as a stream: their 150,000 tokens and merges go straight into vectors, the few
// other values into a tree. (A tree of everything costs most of a second for Qwen's vocabulary.)
#pragma once

#include <cstdint>
#include <nlohmann/json.hpp>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "kernels/base/error.h"

namespace lorikeet::model {

struct BpeJson {
  std::vector<std::pair<std::string, int32_t>> vocab;       // as spelt in the file
  std::vector<std::pair<std::string, std::string>> merges;  // as spelt in the file, in the order of their ranks
  nlohmann::json rest;                                      // everything but model.vocab and model.merges
};

// Bounded in depth and values, no key twice in one object.
Result<BpeJson> parse_tokenizer_json_stream(std::string_view text);
Result<BpeJson> parse_vocab_json_stream(std::string_view text);  // {"token": id, ...}

// "left right" of a merges file; both empty if it is not two parts with one space between.
std::pair<std::string_view, std::string_view> split_merge(std::string_view line);

}  // namespace lorikeet::model
