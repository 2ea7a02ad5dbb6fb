#include "model/checkpoint/safetensors.h"

#include <glog/logging.h>

#include <algorithm>
#include <array>
#include <utility>

#include "kernels/base/printable.h"
#include "model/config/read_file.h"
#include "model/config/strict_json.h"

namespace lorikeet::model {
namespace {

using nlohmann::json;

struct DtypeName {
  std::string_view name;
  uint32_t bits;
  std::optional<kernels::Dtype> dtype;
};

constexpr std::array<DtypeName, 21> kDtypes = {{
    {"BOOL", 8, {}},
    {"F4", 4, {}},
    {"F6_E2M3", 6, {}},
    {"F6_E3M2", 6, {}},
    {"U8", 8, kernels::Dtype::u8},
    {"I8", 8, {}},
    {"F8_E5M2", 8, {}},
    {"F8_E4M3", 8, {}},
    {"F8_E8M0", 8, {}},
    {"F8_E4M3FNUZ", 8, {}},
    {"F8_E5M2FNUZ", 8, {}},
    {"I16", 16, {}},
    {"U16", 16, {}},
    {"F16", 16, kernels::Dtype::f16},
    {"BF16", 16, kernels::Dtype::bf16},
    {"I32", 32, kernels::Dtype::i32},
    {"U32", 32, {}},
    {"F32", 32, kernels::Dtype::f32},
    {"C64", 64, {}},
    {"F64", 64, {}},
    {"I64", 64, {}},
}};

const DtypeName* find_dtype(std::string_view name) {
  if (name == "U64") return find_dtype("I64");
  const auto it = std::find_if(kDtypes.begin(), kDtypes.end(), [&](const DtypeName& d) { return d.name == name; });
  return it == kDtypes.end() ? nullptr : &*it;
}

// A size or an offset: an integer of 0 .. 2^63 - 1 that the file wrote without sign, fraction or exponent.
std::optional<uint64_t> as_size(const json& value) {
  if (!value.is_number_unsigned()) return std::nullopt;
  const auto number = value.get<uint64_t>();
  if (number > static_cast<uint64_t>(INT64_MAX)) return std::nullopt;
  return number;
}

Result<void> check_name(std::string_view name) {
  if (name.empty()) return fail("a tensor without a name");
  if (name.size() > kMaxTensorNameLength) {
    return fail("a tensor's name of {} bytes, at most {} are allowed", name.size(), kMaxTensorNameLength);
  }
  if (name.find('\0') != std::string_view::npos || name.find('/') != std::string_view::npos) {
    return fail("the tensor name \"{}\" holds a NUL or a slash", printable(name));
  }
  return {};
}

Result<TensorEntry> parse_entry(const json& value) {
  if (!value.is_object()) return fail("its entry is not an object");
  if (value.size() != 3 || !value.contains("dtype") || !value.contains("shape") || !value.contains("data_offsets")) {
    return fail("its entry must hold dtype, shape and data_offsets, and nothing else");
  }
  const json& dtype = value["dtype"];
  const json& shape = value["shape"];
  const json& offsets = value["data_offsets"];
  if (!dtype.is_string()) return fail("its dtype is not a string");
  TensorEntry entry;
  entry.dtype_name = dtype.get<std::string>();
  const DtypeName* known = find_dtype(entry.dtype_name);
  if (known == nullptr) return fail("unknown dtype \"{}\"", printable(entry.dtype_name));
  entry.dtype = known->dtype;

  if (!shape.is_array()) return fail("its shape is not an array");
  if (shape.size() > kMaxTensorRank) return fail("{} dimensions, at most {} are read", shape.size(), kMaxTensorRank);
  uint64_t elements = 1;
  for (const json& dimension : shape) {
    const auto size = as_size(dimension);
    if (!size) return fail("a dimension of its shape is not a whole number below 2^63");
    if (__builtin_mul_overflow(elements, *size, &elements)) return fail("its shape overflows 64 bits");
    entry.shape.push_back(static_cast<int64_t>(*size));
  }
  uint64_t bits = 0;
  if (__builtin_mul_overflow(elements, static_cast<uint64_t>(known->bits), &bits)) {
    return fail("its size in bits overflows 64 bits");
  }
  if (bits % 8 != 0) return fail("its size is not a whole number of bytes");

  if (!offsets.is_array() || offsets.size() != 2) return fail("its data_offsets are not two numbers");
  const auto begin = as_size(offsets[0]), end = as_size(offsets[1]);
  if (!begin || !end) return fail("its data_offsets are not whole numbers below 2^63");
  if (*end < *begin) return fail("its data ends ({}) before it begins ({})", *end, *begin);
  if (*end - *begin != bits / 8) {
    return fail("{} bytes of data, shape {} of {} needs {}", *end - *begin, shape_text(entry.shape), entry.dtype_name,
                bits / 8);
  }
  entry.begin = *begin;
  entry.end = *end;
  return entry;
}

// Sorted by offset the tensors must cover the data section without gap or overlap.
Result<void> check_cover(const SafetensorsHeader& header, uint64_t data_size) {
  using Item = std::pair<const std::string, TensorEntry>;
  std::vector<const Item*> order;
  order.reserve(header.tensors.size());
  for (const Item& item : header.tensors) order.push_back(&item);
  std::sort(order.begin(), order.end(), [](const Item* a, const Item* b) {
    return std::pair(a->second.begin, a->second.end) < std::pair(b->second.begin, b->second.end);
  });
  uint64_t end = 0;
  for (const Item* item : order) {
    if (item->second.begin != end) {
      return fail("tensor {} begins at byte {}, the one before it ends at {}: {}", printable(item->first),
                  item->second.begin, end, item->second.begin < end ? "they overlap" : "there is a gap");
    }
    end = item->second.end;
  }
  if (end != data_size) return fail("the tensors end at byte {} of {} bytes of data", end, data_size);
  return {};
}

}  // namespace

int64_t TensorEntry::elements() const {
  int64_t count = 1;
  for (const int64_t size : shape) count *= size;
  return count;
}

std::string shape_text(std::span<const int64_t> shape) {
  return fmt::format("[{}]", fmt::join(shape, ", "));
}

Result<uint64_t> safetensors_header_end(std::span<const uint8_t> first, uint64_t size, std::string_view where) {
  if (size < 8 || first.size() < 8) return fail("{}: {} bytes are too short for a safetensors file", where, size);
  if (is_lfs_pointer({reinterpret_cast<const char*>(first.data()), first.size()}, size)) {
    return fail("{}: {}", where, kIsLfsPointer);
  }
  uint64_t length = 0;
  for (int i = 7; i >= 0; --i) length = length << 8 | first[static_cast<size_t>(i)];
  if (length > kMaxSafetensorsHeader) {
    return fail("{}: not a safetensors file (a header of {} bytes, at most {} are allowed)", where, length,
                kMaxSafetensorsHeader);
  }
  if (length > size - 8) return fail("{}: truncated: a header of {} bytes in a file of {}", where, length, size);
  return 8 + length;
}

Result<SafetensorsHeader> parse_safetensors(std::span<const uint8_t> image, std::string_view where) {
  return parse_safetensors_header(image, image.size(), where);
}

Result<SafetensorsHeader> parse_safetensors_header(std::span<const uint8_t> first, uint64_t size,
                                                   std::string_view where) {
  const auto header_end = safetensors_header_end(first, size, where);
  if (!header_end) return tl::unexpected(header_end.error());
  CHECK_GE(first.size(), *header_end);
  const std::string_view text(reinterpret_cast<const char*>(first.data()) + 8, *header_end - 8);
  if (text.empty() || text.front() != '{') return fail("{}: not a safetensors file (no JSON header)", where);
  // Each entry is an object, a string and two arrays of at most kMaxTensorRank + 2 numbers.
  const JsonLimits limits{kMaxSafetensorsHeader, 4, kMaxSafetensorsEntries * (kMaxTensorRank + 6)};
  auto root = parse_json(text, where, limits);
  if (!root) return tl::unexpected(root.error());
  if (!root->is_object()) return fail("{}: the header is not a JSON object", where);
  if (root->size() > kMaxSafetensorsEntries) {
    return fail("{}: {} tensors, at most {} are read", where, root->size(), kMaxSafetensorsEntries);
  }

  SafetensorsHeader header;
  header.data_begin = *header_end;
  for (const auto& [name, value] : root->items()) {
    if (name == "__metadata__") {
      if (!value.is_object()) return fail("{}: __metadata__ is not an object", where);
      for (const auto& [key, text_value] : value.items()) {
        if (!text_value.is_string()) return fail("{}: __metadata__ holds something that is not a string", where);
        header.metadata.emplace(key, text_value.get<std::string>());
      }
      continue;
    }
    if (auto ok = check_name(name); !ok) return fail("{}: {}", where, ok.error().message);
    auto entry = parse_entry(value);
    if (!entry) return fail("{}: tensor {}: {}", where, printable(name), entry.error().message);
    header.tensors.emplace(name, std::move(*entry));
  }
  if (auto ok = check_cover(header, size - header.data_begin); !ok) {
    return fail("{}: {}", where, ok.error().message);
  }
  return header;
}

}  // namespace lorikeet::model
