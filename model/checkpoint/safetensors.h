// The safetensors format: u64 N, N bytes of JSON that name the tensors, then their bytes. Every check of the reference
// reader (huggingface/safetensors tensor.rs), and the ones that it leaves out: duplicate keys, depth, name and entry
// caps.
#pragma once

#include <cstdint>
#include <filesystem>
#include <map>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "kernels/base/dtype.h"
#include "kernels/base/error.h"

namespace lorikeet::model {

struct TensorEntry {
  std::string dtype_name;               // as in the file
  std::optional<kernels::Dtype> dtype;  // empty: legal in a file, of no use here
  std::vector<int64_t> shape;
  uint64_t begin = 0, end = 0;  // bytes of the data section

  int64_t elements() const;
};

std::string shape_text(std::span<const int64_t> shape);  // "[512, 64]"

struct SafetensorsHeader {
  std::map<std::string, TensorEntry, std::less<>> tensors;
  std::map<std::string, std::string, std::less<>> metadata;
  uint64_t data_begin = 0;  // offset of the data section in the image
};

inline constexpr uint64_t kMaxSafetensorsHeader = 100'000'000;  // bytes, as the reference reader
inline constexpr size_t kMaxSafetensorsEntries = 200'000;
inline constexpr size_t kMaxTensorNameLength = 512;
inline constexpr size_t kMaxTensorRank = 8;

// `image` is the whole file (or message); `where` names it in errors. Touches the header's bytes only.
Result<SafetensorsHeader> parse_safetensors(std::span<const uint8_t> image, std::string_view where);

// The same for a file of `size` bytes of which only the first are at hand: where its header ends, from its first 8
// bytes, and the header, from those up to there.
Result<uint64_t> safetensors_header_end(std::span<const uint8_t> first, uint64_t size, std::string_view where);
Result<SafetensorsHeader> parse_safetensors_header(std::span<const uint8_t> first, uint64_t size,
                                                   std::string_view where);

// The bytes of one tensor and who keeps them alive. They may be unaligned.
struct TensorView {
  const TensorEntry* entry = nullptr;  // belongs to the owner too
  std::span<const uint8_t> bytes;
  std::shared_ptr<const void> owner;
  std::string where;  // "file: tensor", for errors
};

// A memory-mapped file. Threads: const methods from any number of threads.
class SafetensorsFile : public std::enable_shared_from_this<SafetensorsFile> {
 public:
  static Result<std::shared_ptr<const SafetensorsFile>> open(const std::filesystem::path& path);
  ~SafetensorsFile();
  SafetensorsFile(const SafetensorsFile&) = delete;
  SafetensorsFile& operator=(const SafetensorsFile&) = delete;

  const SafetensorsHeader& header() const { return header_; }
  const std::filesystem::path& path() const { return path_; }
  std::optional<TensorView> find(std::string_view name) const;

 private:
  SafetensorsFile(std::filesystem::path path, std::span<const uint8_t> image) : path_(std::move(path)), image_(image) {}

  std::filesystem::path path_;
  std::span<const uint8_t> image_;
  SafetensorsHeader header_;
};

}  // namespace lorikeet::model
