// Reads small text files (configurations, vocabularies) whole.
#pragma once

#include <cstdint>
#include <filesystem>
#include <string>
#include <string_view>

#include "kernels/base/error.h"

namespace lorikeet::model {

inline constexpr int64_t kMaxTextFile = 16 << 20;  // of configurations and templates, in bytes

// Whether these first bytes of a file of so many say that it is what git leaves in the place of a large one that was not
// fetched, and what to say of it.
bool is_lfs_pointer(std::string_view first, uint64_t size);
inline constexpr std::string_view kIsLfsPointer =
    "Git LFS's pointer to the file, not the file itself: fetch it (git lfs pull)";

// Fails if the file cannot be read or is larger than max_bytes; the sentence names it.
Result<std::string> read_file(const std::filesystem::path& path, int64_t max_bytes);

}  // namespace lorikeet::model
