// JSON from files that nobody vouches for: bounded in size, depth and number of values, and no key twice in one object
// (nlohmann's own parser keeps the last one silently, so two readers could see two different files).
#pragma once

#include <cstddef>
#include <filesystem>
#include <nlohmann/json.hpp>
#include <string>
#include <string_view>

#include "kernels/base/error.h"

namespace lorikeet::model {

struct JsonLimits {
  size_t max_bytes = 16u << 20;
  size_t max_depth = 64;
  size_t max_values = 2'000'000;  // an index of 14B has a few thousand entries
};

// `where` names the source in errors.
Result<nlohmann::json> parse_json(std::string_view text, std::string_view where, const JsonLimits& limits = {});

// The same, with the keys of objects in the order of the text.
Result<nlohmann::ordered_json> parse_ordered_json(std::string_view text, std::string_view where,
                                                  const JsonLimits& limits = {});

// The content of a regular file of at most `max_bytes`.
Result<std::string> read_text_file(const std::filesystem::path& path, size_t max_bytes);

// Reads and parses a regular file whose root must be an object.
Result<nlohmann::json> read_json_object(const std::filesystem::path& path, const JsonLimits& limits = {});

}  // namespace lorikeet::model
