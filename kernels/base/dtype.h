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

constexpr float bf16_to_float(uint16_t b) {
  return std::bit_cast<float>(static_cast<uint32_t>(b) << 16);
}

// binary32 -> the nearest of the 16-bit floats, ties to even. Without branches, so that loops over them vectorise.
constexpr uint16_t float_to_half(float value) {
  const uint32_t bits = std::bit_cast<uint32_t>(value);
  const uint32_t sign = bits >> 16 & 0x8000u;
  const uint32_t magnitude = bits & 0x7fffffffu;
  const uint32_t normal = (magnitude + 0xfffu + (magnitude >> 13 & 1u) - 0x38000000u) >> 13;
  // Below 2^-14 the addition of 0.5 moves the rounding to where a subnormal ends.
  const uint32_t subnormal = std::bit_cast<uint32_t>(std::bit_cast<float>(magnitude) + 0.5f) - 0x3f000000u;
  uint32_t half = magnitude < 0x38800000u ? subnormal : normal;
  half = magnitude >= 0x477ff000u ? 0x7c00u : half;
  half = magnitude > 0x7f800000u ? 0x7e00u : half;
  return static_cast<uint16_t>(sign | half);
}

constexpr uint16_t float_to_bf16(float value) {
  const uint32_t bits = std::bit_cast<uint32_t>(value);
  const uint32_t rounded = (bits + 0x7fffu + (bits >> 16 & 1u)) >> 16;
  const bool is_nan = (bits & 0x7fffffffu) > 0x7f800000u;
  return static_cast<uint16_t>(is_nan ? bits >> 16 | 0x40u : rounded);
}

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
