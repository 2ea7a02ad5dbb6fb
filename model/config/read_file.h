// Reads small text files (configurations, vocabularies) whole.
#pragma once

#include <cstdint>
#include <filesystem>
#include <string>
#include <string_view>

#include "kernels/base/error.h"

namespace lorikeet::model {

inline constexpr int64_t kMaxTextFile = 16 << 20;  // of configurations and templates, in bytes

// Whether a file of `size` bytes, by its first bytes, is the pointer that git-lfs leaves in place of a large file that was not
// fetched; and the error for it.
bool is_lfs_pointer(std::string_view first, uint64_t size);
inline constexpr std::string_view kIsLfsPointer =
    "Git LFS's pointer to the file, not the file itself: fetch it (git lfs pull)";

// Fails if the file cannot be read or is larger than max_bytes; the sentence names it.
Result<std::string> read_file(const std::filesystem::path& path, int64_t max_bytes);

}  // namespace lorikeet::model
