// Reads small text files (configurations, vocabularies) whole.
#pragma once

#include <cstdint>
#include <filesystem>
#include <string>

#include "kernels/base/error.h"

namespace lorikeet::model {

inline constexpr int64_t kMaxTextFile = 16 << 20;  // of configurations and templates, in bytes

// Fails if the file cannot be read or is larger than max_bytes; the sentence names it.
Result<std::string> read_file(const std::filesystem::path& path, int64_t max_bytes);

}  // namespace lorikeet::model
