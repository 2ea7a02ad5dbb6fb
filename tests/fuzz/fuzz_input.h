// What fuzz targets share: inputs of several files, and where these lie.
#pragma once

#include <unistd.h>

#include <cstdlib>
#include <filesystem>
#include <fstream>
#include <string>
#include <string_view>
#include <vector>

namespace lorikeet::fuzz {

inline void require(bool condition) {
  if (!condition) std::abort();
}

// A result or a sentence.
template <class T>
bool succeeded(const T& result) {
  if (!result) require(!result.error().message.empty());
  return static_cast<bool>(result);
}

// Files end at the bytes 0xFF 0x00.
inline std::vector<std::string_view> split(std::string_view input) {
  constexpr std::string_view kEnd("\xFF\0", 2);
  std::vector<std::string_view> files;
  while (true) {
    const size_t end = input.find(kEnd);
    files.push_back(input.substr(0, end));
    if (end == std::string_view::npos) return files;
    input.remove_prefix(end + kEnd.size());
  }
}

// A directory in memory, one for the process.
inline const std::filesystem::path& scratch() {
  struct Directory {
    std::filesystem::path path = "/dev/shm/lorikeet-fuzz-" + std::to_string(getpid());
    Directory() { std::filesystem::create_directory(path); }
    ~Directory() { std::filesystem::remove_all(path); }
  };
  static const Directory directory;
  return directory.path;
}

// Without a text: no such file.
inline std::string put(const char* name, const std::string_view* text) {
  const std::filesystem::path path = scratch() / name;
  if (text == nullptr) {
    std::filesystem::remove(path);
  } else {
    std::ofstream(path, std::ios::binary | std::ios::trunc) << *text;
  }
  return path.string();
}

}  // namespace lorikeet::fuzz
