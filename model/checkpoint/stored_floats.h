// Floats in the type in which a file has them: float32, fp16 or bf16. Adapters are read and cut in that type; they are
// converted only when they are packed or computed with. Copies, and parts of whole rows, share one immutable memory.
#pragma once

#include <array>
#include <cstdint>
#include <memory>
#include <optional>
#include <span>
#include <utility>
#include <vector>

#include "kernels/base/dtype.h"

namespace lorikeet::model {

class StoredFloats {
 public:
  StoredFloats() = default;
  StoredFloats(const std::vector<float>& values);  // NOLINT(google-explicit-constructor): float32 is one of the types
  // `bytes`: whole values of one of the three types, little-endian; copied.
  StoredFloats(kernels::Dtype dtype, std::span<const uint8_t> bytes);
  // The same where they lie; `owner` keeps them there.
  StoredFloats(kernels::Dtype dtype, std::span<const uint8_t> bytes, std::shared_ptr<const void> owner)
      : dtype_(dtype), bytes_(bytes), owner_(std::move(owner)) {}

  kernels::Dtype dtype() const { return dtype_; }
  size_t size() const { return bytes_.size() / kernels::size_of(dtype_); }
  bool empty() const { return bytes_.empty(); }
  std::span<const uint8_t> bytes() const { return bytes_; }
  const void* data() const { return bytes_.data(); }

  float operator[](size_t i) const { return kernels::load_float(bytes_.data(), dtype_, i); }
  std::vector<float> floats() const;

  // A row-major matrix of `columns` columns: its rows [begin, end), its columns [begin, end), or its rows at the places
  // `to` of one with `rows` rows (columns likewise) that is zero elsewhere.
  StoredFloats rows(size_t columns, size_t begin, size_t end) const;
  StoredFloats columns(size_t columns, size_t begin, size_t end) const;
  StoredFloats spread_rows(size_t columns, const std::vector<int32_t>& to, size_t rows) const;
  StoredFloats spread_columns(const std::vector<int32_t>& to, size_t columns) const;
  StoredFloats repeat_columns(size_t columns, size_t times) const;  // each one so often, side by side

  // The same values in the smallest of the types that holds all of them exactly.
  StoredFloats smallest() const;

  // The first value that is an infinity or none.
  std::optional<size_t> first_not_finite() const;

  // Equal values, whatever their types.
  bool operator==(const StoredFloats& other) const;

 private:
  static StoredFloats owning(kernels::Dtype dtype, std::vector<uint8_t> bytes);

  kernels::Dtype dtype_ = kernels::Dtype::f32;
  std::span<const uint8_t> bytes_;
  std::shared_ptr<const void> owner_;
};

// The same of floats that lie anywhere.
std::optional<size_t> first_not_finite(kernels::Dtype dtype, std::span<const uint8_t> bytes);

// Whether two tensors hold the same weights, whatever their types: one of them is the other as its own type rounds it,
// possibly by way of another type (trained in bfloat16 over float16, then saved as float32). All their values must have
// gone the same way, so that a weight which was truly changed shows. Compared piece by piece.
class SameWeights {
 public:
  void compare(kernels::Dtype a_type, std::span<const uint8_t> a, kernels::Dtype b_type, std::span<const uint8_t> b);
  bool same() const;  // as far as they have been compared

 private:
  // By way of float32, float16, bfloat16: a rounded to b, b rounded to a.
  std::array<bool, 6> possible_ = {true, true, true, true, true, true};
};

}  // namespace lorikeet::model
