#include "model/config/read_file.h"

#include <algorithm>
#include <cerrno>
#include <cstring>
#include <fstream>
#include <system_error>

namespace lorikeet::model {

bool is_lfs_pointer(std::string_view first, uint64_t size) {
  constexpr std::string_view kBegin = "version https://git-lfs";
  constexpr uint64_t kMostBytes = 1024;  // of a pointer, by its specification
  const size_t seen = std::min(first.size(), kBegin.size());
  return size < kMostBytes && seen >= 8 && first.substr(0, seen) == kBegin.substr(0, seen);
}

Result<std::string> read_file(const std::filesystem::path& path, int64_t max_bytes) {
  std::error_code error;
  // The size of what is not a regular file says nothing: a FIFO would block, /dev/zero never ends.
  if (!std::filesystem::is_regular_file(path, error)) {
    return fail("{}: {}", path.string(), error ? error.message() : "not a regular file");
  }
  const auto size = std::filesystem::file_size(path, error);
  if (error) return fail("{}: {}", path.string(), error.message());
  if (size > static_cast<uintmax_t>(max_bytes)) {
    return fail("{}: {} bytes, more than the {} that are allowed", path.string(), size, max_bytes);
  }
  std::ifstream file(path, std::ios::binary);
  std::string content(size, '\0');
  if (!file || !file.read(content.data(), static_cast<std::streamsize>(size))) {
    return fail("{}: {}", path.string(), std::strerror(errno));
  }
  if (is_lfs_pointer(content, size)) return fail("{}: {}", path.string(), kIsLfsPointer);
  return content;
}

}  // namespace lorikeet::model
