// The index of a sharded checkpoint: no accepted name leads out of the checkpoint's directory.
#include <cstdint>
#include <cstdlib>
#include <filesystem>
#include <string_view>

#include "model/checkpoint/checkpoint.h"

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  const auto index = lorikeet::model::parse_shard_index({reinterpret_cast<const char*>(data), size}, "fuzz");
  if (!index) {
    if (index.error().message.empty()) std::abort();
    return 0;
  }
  for (const auto& [tensor, file] : *index) {
    const std::filesystem::path path(file);
    if (path.filename() != path || file == "." || file == ".." || file.find('\0') != std::string::npos) std::abort();
  }
  return 0;
}
