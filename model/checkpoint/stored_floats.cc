#include "model/checkpoint/stored_floats.h"

#include <bit>
#include <cmath>
#include <cstring>

namespace lorikeet::model {
namespace {

using kernels::Dtype;

// Half of x if that is exactly x.
std::optional<uint16_t> exact_half(float value) {
  const auto bits = std::bit_cast<uint32_t>(value);
  const auto sign = static_cast<uint16_t>(bits >> 16 & 0x8000u);
  if ((bits & 0x7fffffffu) == 0) return sign;
  const int exponent = static_cast<int>(bits >> 23 & 0xffu) - 127;
  const uint32_t mantissa = (bits & 0x7fffffu) | 0x800000u;
  if (exponent > 15 || exponent < -24) return std::nullopt;
  const int shift = exponent >= -14 ? 13 : -1 - exponent;  // below 2^-14 halves are multiples of 2^-24
  if ((mantissa & ((1u << shift) - 1)) != 0) return std::nullopt;
  const uint32_t kept = mantissa >> shift;
  if (exponent < -14) return static_cast<uint16_t>(sign | kept);
  return static_cast<uint16_t>(sign | static_cast<uint32_t>(exponent + 15) << 10 | (kept & 0x3ffu));
}

// The bits that are all ones in what is not finite.
template <class Word>
bool all_finite(const std::vector<uint8_t>& bytes, Word exponent) {
  const size_t count = bytes.size() / sizeof(Word);
  unsigned found = 0;  // no early end: the loop vectorises
  for (size_t i = 0; i < count; ++i) {
    Word word = 0;
    std::memcpy(&word, bytes.data() + i * sizeof(Word), sizeof(Word));
    found |= (word & exponent) == exponent;
  }
  return found == 0;
}

}  // namespace

StoredFloats::StoredFloats(const std::vector<float>& values) : bytes_(values.size() * sizeof(float)) {
  if (!values.empty()) std::memcpy(bytes_.data(), values.data(), bytes_.size());
}

std::vector<float> StoredFloats::floats() const {
  std::vector<float> values(size());
  for (size_t i = 0; i < values.size(); ++i) values[i] = (*this)[i];
  return values;
}

StoredFloats StoredFloats::rows(size_t columns, size_t begin, size_t end) const {
  const size_t row = columns * kernels::size_of(dtype_);
  return {dtype_, std::span(bytes_).subspan(begin * row, (end - begin) * row)};
}

StoredFloats StoredFloats::columns(size_t columns, size_t begin, size_t end) const {
  if (columns == 0 || (begin == 0 && end == columns)) return *this;
  const size_t element = kernels::size_of(dtype_), row = columns * element;
  StoredFloats part;
  part.dtype_ = dtype_;
  part.bytes_.reserve(bytes_.size() / columns * (end - begin));
  for (auto from = bytes_.begin(); from != bytes_.end(); from += static_cast<ptrdiff_t>(row)) {
    part.bytes_.insert(part.bytes_.end(), from + static_cast<ptrdiff_t>(begin * element),
                       from + static_cast<ptrdiff_t>(end * element));
  }
  return part;
}

StoredFloats StoredFloats::spread_rows(size_t columns, const std::vector<int32_t>& to, size_t rows) const {
  const size_t row = columns * kernels::size_of(dtype_);
  StoredFloats result;
  result.dtype_ = dtype_;
  result.bytes_.resize(rows * row);  // of zeros, which are 0.0 in every type
  for (size_t i = 0; i < to.size(); ++i) {
    std::memcpy(result.bytes_.data() + static_cast<size_t>(to[i]) * row, bytes_.data() + i * row, row);
  }
  return result;
}

StoredFloats StoredFloats::spread_columns(const std::vector<int32_t>& to, size_t columns) const {
  const size_t element = kernels::size_of(dtype_), rows = to.empty() ? 0 : size() / to.size();
  StoredFloats result;
  result.dtype_ = dtype_;
  result.bytes_.resize(rows * columns * element);
  const uint8_t* from = bytes_.data();
  for (size_t r = 0; r < rows; ++r) {
    for (size_t i = 0; i < to.size(); ++i, from += element) {
      std::memcpy(result.bytes_.data() + (r * columns + static_cast<size_t>(to[i])) * element, from, element);
    }
  }
  return result;
}

StoredFloats StoredFloats::smallest() const {
  if (dtype_ != Dtype::f32) return *this;
  const size_t count = size();
  bool half = true, bf16 = true;
  for (size_t i = 0; i < count && (half || bf16); ++i) {
    const float value = (*this)[i];
    bf16 = bf16 && (std::bit_cast<uint32_t>(value) & 0xffffu) == 0;
    half = half && exact_half(value).has_value();
  }
  if (!half && !bf16) return *this;
  StoredFloats result;
  result.dtype_ = half ? Dtype::f16 : Dtype::bf16;
  result.bytes_.resize(2 * count);
  for (size_t i = 0; i < count; ++i) {
    const float value = (*this)[i];
    const uint16_t bits = half ? *exact_half(value) : static_cast<uint16_t>(std::bit_cast<uint32_t>(value) >> 16);
    std::memcpy(result.bytes_.data() + 2 * i, &bits, 2);
  }
  return result;
}

std::optional<size_t> StoredFloats::first_not_finite() const {
  const bool finite = dtype_ == Dtype::f32   ? all_finite<uint32_t>(bytes_, 0x7f800000u)
                      : dtype_ == Dtype::f16 ? all_finite<uint16_t>(bytes_, 0x7c00u)
                                             : all_finite<uint16_t>(bytes_, 0x7f80u);
  if (finite) return std::nullopt;
  size_t i = 0;
  while (std::isfinite((*this)[i])) ++i;
  return i;
}

bool StoredFloats::operator==(const StoredFloats& other) const {
  if (size() != other.size()) return false;
  for (size_t i = 0; i < size(); ++i) {
    if ((*this)[i] != other[i]) return false;
  }
  return true;
}

}  // namespace lorikeet::model
