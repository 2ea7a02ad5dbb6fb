// The safetensors format: u64 N, N bytes of JSON that name the tensors, then their bytes. Every check of the reference
// reader (huggingface/safetensors tensor.rs), and the ones that it leaves out: duplicate keys, depth, name and entry
// caps.
#pragma once

#include <cstdint>
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

class SafetensorsFile;

// One tensor: what the header says of it, and its bytes once they have been read. They may be unaligned.
struct TensorView {
  const TensorEntry* entry = nullptr;
  std::span<const uint8_t> bytes;
  std::shared_ptr<const void> owner;  // of all that is pointed to
  std::string where;                  // "file: tensor", for errors
  const SafetensorsFile* file =
      nullptr;  // what the bytes can be read from; null: they are there or come by another way
};

}  // namespace lorikeet::model
