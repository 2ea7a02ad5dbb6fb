// Parses JSON that may be hostile: nesting, the number of values and duplicate keys are checked while it is read,
// before they cost memory. Text must be UTF-8.
#pragma once

#include <cstddef>
#include <nlohmann/json.hpp>
#include <string_view>

#include "kernels/base/error.h"

namespace lorikeet::comm {

struct JsonLimits {
  size_t max_bytes = 16 << 20;
  size_t max_depth = 16;
  size_t max_values = 1 << 20;  // numbers, strings, objects, ..., keys included
};

// Errors: a sentence with line and column, or the limit that was passed.
Result<nlohmann::json> parse_bounded_json(std::string_view text, const JsonLimits& limits = {});

// A piece of someone's text for a sentence: at most 64 bytes of it, in quotes.
std::string excerpt(std::string_view text);

}  // namespace lorikeet::comm
