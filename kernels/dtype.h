// Element types of tensors in memory, and conversions of the 16-bit floats.
#pragma once

#include <bit>
#include <cstddef>
#include <cstdint>
#include <string_view>

namespace lorikeet::kernels {

enum class Dtype : uint8_t { f32, f16, bf16, i32, u8 };

constexpr size_t size_of(Dtype t) {
  switch (t) {
    case Dtype::f32:
    case Dtype::i32:
      return 4;
    case Dtype::f16:
    case Dtype::bf16:
      return 2;
    case Dtype::u8:
      return 1;
  }
  return 0;
}

constexpr std::string_view name_of(Dtype t) {
  constexpr std::string_view names[] = {"F32", "F16", "BF16", "I32", "U8"};
  return names[static_cast<size_t>(t)];
}

// IEEE 754 binary16 -> binary32, exact; subnormals, infinities and NaN included.
constexpr float half_to_float(uint16_t h) {
  const uint32_t sign = static_cast<uint32_t>(h & 0x8000u) << 16;
  const uint32_t exponent = (h >> 10) & 0x1fu;
  const uint32_t mantissa = h & 0x3ffu;
  if (exponent == 0) {  // zero or subnormal: mantissa * 2^-24
    const float magnitude = static_cast<float>(mantissa) * 0x1p-24f;
    return sign != 0 ? -magnitude : magnitude;
  }
  if (exponent == 0x1f) return std::bit_cast<float>(sign | 0x7f800000u | (mantissa << 13));
  return std::bit_cast<float>(sign | ((exponent + 112) << 23) | (mantissa << 13));
}

constexpr float bf16_to_float(uint16_t b) { return std::bit_cast<float>(static_cast<uint32_t>(b) << 16); }

// Reads element i of a row of f32, f16 or bf16 values. The pointer may be unaligned (safetensors promises nothing).
inline float load_float(const void* row, Dtype dtype, size_t i) {
  const auto* bytes = static_cast<const unsigned char*>(row) + i * size_of(dtype);
  if (dtype == Dtype::f32) {
    float value = 0;
    __builtin_memcpy(&value, bytes, sizeof value);
    return value;
  }
  uint16_t value = 0;
  __builtin_memcpy(&value, bytes, sizeof value);
  return dtype == Dtype::f16 ? half_to_float(value) : bf16_to_float(value);
}

}  // namespace lorikeet::kernels
