#include "model/checkpoint/stored_floats.h"

#include <algorithm>
#include <array>
#include <bit>
#include <cmath>
#include <cstring>
#include <utility>

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
bool all_finite(std::span<const uint8_t> bytes, Word exponent) {
  const size_t count = bytes.size() / sizeof(Word);
  unsigned found = 0;  // no early end: the loop vectorises
  for (size_t i = 0; i < count; ++i) {
    Word word = 0;
    std::memcpy(&word, bytes.data() + i * sizeof(Word), sizeof(Word));
    found |= (word & exponent) == exponent;
  }
  return found == 0;
}

float rounded(float value, Dtype dtype) {
  switch (dtype) {
    case Dtype::f16:
      return kernels::half_to_float(kernels::float_to_half(value));
    case Dtype::bf16:
      return kernels::bf16_to_float(kernels::float_to_bf16(value));
    default:
      return value;
  }
}

constexpr std::array kRoundings = {Dtype::f32, Dtype::f16, Dtype::bf16};

}  // namespace

StoredFloats StoredFloats::owning(Dtype dtype, std::vector<uint8_t> bytes) {
  const auto owned = std::make_shared<const std::vector<uint8_t>>(std::move(bytes));
  return {dtype, *owned, owned};
}

StoredFloats::StoredFloats(Dtype dtype, std::span<const uint8_t> bytes)
    : StoredFloats(owning(dtype, {bytes.begin(), bytes.end()})) {}

StoredFloats::StoredFloats(const std::vector<float>& values)
    : StoredFloats(Dtype::f32, {reinterpret_cast<const uint8_t*>(values.data()), values.size() * sizeof(float)}) {}

std::vector<float> StoredFloats::floats() const {
  std::vector<float> values(size());
  for (size_t i = 0; i < values.size(); ++i) values[i] = (*this)[i];
  return values;
}

StoredFloats StoredFloats::rows(size_t columns, size_t begin, size_t end) const {
  const size_t row = columns * kernels::size_of(dtype_);
  return {dtype_, bytes_.subspan(begin * row, (end - begin) * row), owner_};
}

StoredFloats StoredFloats::columns(size_t columns, size_t begin, size_t end) const {
  if (columns == 0 || (begin == 0 && end == columns)) return *this;
  const size_t element = kernels::size_of(dtype_), row = columns * element, part = (end - begin) * element;
  std::vector<uint8_t> bytes(bytes_.size() / row * part);
  for (size_t r = 0; r * part < bytes.size(); ++r) {
    std::memcpy(bytes.data() + r * part, bytes_.data() + r * row + begin * element, part);
  }
  return owning(dtype_, std::move(bytes));
}

StoredFloats StoredFloats::spread_rows(size_t columns, const std::vector<int32_t>& to, size_t rows) const {
  const size_t row = columns * kernels::size_of(dtype_);
  std::vector<uint8_t> bytes(rows * row);  // of zeros, which are 0.0 in every type
  for (size_t i = 0; i < to.size(); ++i) {
    std::memcpy(bytes.data() + static_cast<size_t>(to[i]) * row, bytes_.data() + i * row, row);
  }
  return owning(dtype_, std::move(bytes));
}

StoredFloats StoredFloats::spread_columns(const std::vector<int32_t>& to, size_t columns) const {
  const size_t element = kernels::size_of(dtype_), rows = to.empty() ? 0 : size() / to.size();
  std::vector<uint8_t> bytes(rows * columns * element);
  const uint8_t* from = bytes_.data();
  for (size_t r = 0; r < rows; ++r) {
    for (size_t i = 0; i < to.size(); ++i, from += element) {
      std::memcpy(bytes.data() + (r * columns + static_cast<size_t>(to[i])) * element, from, element);
    }
  }
  return owning(dtype_, std::move(bytes));
}

StoredFloats StoredFloats::repeat_columns(size_t columns, size_t times) const {
  const size_t element = kernels::size_of(dtype_), rows = columns == 0 ? 0 : size() / columns;
  std::vector<uint8_t> bytes(rows * columns * times * element);
  uint8_t* to = bytes.data();
  for (size_t i = 0; i < rows * columns; ++i) {
    for (size_t k = 0; k < times; ++k, to += element) std::memcpy(to, bytes_.data() + i * element, element);
  }
  return owning(dtype_, std::move(bytes));
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
  std::vector<uint8_t> bytes(2 * count);
  for (size_t i = 0; i < count; ++i) {
    const float value = (*this)[i];
    const uint16_t bits = half ? *exact_half(value) : static_cast<uint16_t>(std::bit_cast<uint32_t>(value) >> 16);
    std::memcpy(bytes.data() + 2 * i, &bits, 2);
  }
  return owning(half ? Dtype::f16 : Dtype::bf16, std::move(bytes));
}

std::optional<size_t> StoredFloats::first_not_finite() const {
  return model::first_not_finite(dtype_, bytes_);
}

bool StoredFloats::operator==(const StoredFloats& other) const {
  if (size() != other.size()) return false;
  for (size_t i = 0; i < size(); ++i) {
    if ((*this)[i] != other[i]) return false;
  }
  return true;
}

std::optional<size_t> first_not_finite(Dtype dtype, std::span<const uint8_t> bytes) {
  const bool finite = dtype == Dtype::f32   ? all_finite<uint32_t>(bytes, 0x7f800000u)
                      : dtype == Dtype::f16 ? all_finite<uint16_t>(bytes, 0x7c00u)
                                            : all_finite<uint16_t>(bytes, 0x7f80u);
  if (finite) return std::nullopt;
  size_t i = 0;
  while (std::isfinite(kernels::load_float(bytes.data(), dtype, i))) ++i;
  return i;
}

void SameWeights::compare(Dtype a_type, std::span<const uint8_t> a, Dtype b_type, std::span<const uint8_t> b) {
  const size_t count = a.size() / kernels::size_of(a_type);
  if (count != b.size() / kernels::size_of(b_type)) possible_ = {};
  for (size_t i = 0; i < count && same(); ++i) {
    const float x = kernels::load_float(a.data(), a_type, i), y = kernels::load_float(b.data(), b_type, i);
    if (x == y) continue;
    for (size_t path = 0; path < kRoundings.size(); ++path) {
      const Dtype through = kRoundings[path];
      possible_[2 * path] = possible_[2 * path] && rounded(rounded(x, through), b_type) == y;
      possible_[2 * path + 1] = possible_[2 * path + 1] && rounded(rounded(y, through), a_type) == x;
    }
  }
}

bool SameWeights::same() const {
  return std::any_of(possible_.begin(), possible_.end(), [](bool possible) { return possible; });
}

}  // namespace lorikeet::model
