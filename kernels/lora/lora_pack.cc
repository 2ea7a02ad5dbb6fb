#include <algorithm>
#include <cstring>
#include <type_traits>

#include "kernels/lora/lora_layout.h"

namespace lorikeet::kernels::lora {
namespace {

// One element of the type kFrom as kTo.
template <Dtype kFrom, Dtype kTo>
uint16_t element(const unsigned char* values, int64_t i) {
  if constexpr (kFrom == kTo) {
    uint16_t bits = 0;
    std::memcpy(&bits, values + 2 * i, sizeof bits);
    return bits;
  } else {
    const float value = load_float(values, kFrom, static_cast<size_t>(i));
    return kTo == Dtype::f16 ? float_to_half(value) : float_to_bf16(value);
  }
}

// Calls run with the conversion between the two types, an object of its own type for each so that it is inlined.
template <class Run>
void with_types(Dtype from, Dtype to, Run&& run) {
  const auto with_target = [&](auto target) {
    constexpr Dtype kTo = decltype(target)::value;
    if (from == Dtype::f16)
      return run([](const unsigned char* v, int64_t i) { return element<Dtype::f16, kTo>(v, i); });
    if (from == Dtype::bf16)
      return run([](const unsigned char* v, int64_t i) { return element<Dtype::bf16, kTo>(v, i); });
    run([](const unsigned char* v, int64_t i) { return element<Dtype::f32, kTo>(v, i); });
  };
  if (to == Dtype::f16) return with_target(std::integral_constant<Dtype, Dtype::f16>());
  with_target(std::integral_constant<Dtype, Dtype::bf16>());
}

}  // namespace

void pack_a_tile(const void* a, Dtype from, int32_t rank, int32_t inputs, int32_t tile, Dtype dtype, uint16_t* out) {
  const auto* values = static_cast<const unsigned char*>(a);
  const int32_t blocks = input_blocks(inputs);
  with_types(from, dtype, [&](auto&& as_target) {
    for (int32_t g = 0; g < kRankTile; g++) {
      const int32_t r = tile * kRankTile + g;
      for (int32_t block = 0; block < blocks; block++) {
        uint16_t* to = out + (static_cast<int64_t>(block) * kRankTile + g) * kInputBlock;
        const int32_t begin = block * kInputBlock;
        const int32_t count = r < rank ? std::min(kInputBlock, inputs - begin) : 0;
        const int64_t first = static_cast<int64_t>(r < rank ? r : 0) * inputs + begin;
        for (int32_t i = 0; i < count; i++) to[i] = as_target(values, first + i);
        std::fill(to + count, to + kInputBlock, uint16_t{0});
      }
    }
  });
}

void pack_b_tile(const void* b, Dtype from, int32_t rank, int32_t outputs, int32_t tile, Dtype dtype, uint16_t* out) {
  const auto* values = static_cast<const unsigned char*>(b);
  with_types(from, dtype, [&](auto&& as_target) {
    for (int32_t block = 0; block < rank_tiles(rank); block++, out += kBlockBytes / 2) {
      for (int32_t o = 0; o < kOutputTile; o++) {
        const int32_t output = tile * kOutputTile + o;
        const int32_t g = 2 * (o / 8) + o % 2;
        uint16_t* to = out + g * 32 + (o % 8) / 2 * 2;
        const int64_t first = static_cast<int64_t>(output) * rank + block * kRankTile;
        const int32_t valid = output < outputs ? std::min(kRankTile, rank - block * kRankTile) : 0;
        for (int32_t r = 0; r < kRankTile; r++) {
          to[r / 2 * 8 + r % 2] = r < valid ? as_target(values, first + r) : uint16_t{0};
        }
      }
    }
  });
}

void convert(const void* values, Dtype from, int64_t first, int64_t count, Dtype dtype, uint16_t* out) {
  with_types(from, dtype, [&](auto&& as_target) {
    for (int64_t i = 0; i < count; i++) out[i] = as_target(static_cast<const unsigned char*>(values), first + i);
  });
}

bool all_finite(const uint16_t* values, uint64_t count, Dtype dtype) {
  const uint16_t exponent = dtype == Dtype::f16 ? 0x7c00 : 0x7f80;
  bool finite = true;
  for (uint64_t i = 0; i < count; i++) finite &= (values[i] & exponent) != exponent;
  return finite;
}

}  // namespace lorikeet::kernels::lora
