#include <algorithm>

#include "kernels/lora_layout.h"

namespace lorikeet::kernels::lora {
namespace {

template <class F>
void pack_a(const float* a, int32_t rank, int32_t inputs, int32_t tile, F&& convert, uint16_t* out) {
  const int32_t blocks = input_blocks(inputs);
  for (int32_t g = 0; g < kRankTile; g++) {
    const int32_t r = tile * kRankTile + g;
    for (int32_t block = 0; block < blocks; block++) {
      uint16_t* to = out + (static_cast<int64_t>(block) * kRankTile + g) * kInputBlock;
      const int32_t begin = block * kInputBlock;
      const int32_t count = r < rank ? std::min(kInputBlock, inputs - begin) : 0;
      const float* from = a + static_cast<int64_t>(r < rank ? r : 0) * inputs + begin;
      for (int32_t i = 0; i < count; i++) to[i] = convert(from[i]);
      std::fill(to + count, to + kInputBlock, uint16_t{0});
    }
  }
}

template <class F>
void pack_b(const float* b, int32_t rank, int32_t outputs, int32_t tile, F&& convert, uint16_t* out) {
  for (int32_t block = 0; block < rank_tiles(rank); block++, out += kBlockBytes / 2) {
    for (int32_t o = 0; o < kOutputTile; o++) {
      const int32_t output = tile * kOutputTile + o;
      const int32_t g = 2 * (o / 8) + o % 2;
      uint16_t* to = out + g * 32 + (o % 8) / 2 * 2;
      for (int32_t r = 0; r < kRankTile; r++) {
        const int32_t k = block * kRankTile + r;
        const bool valid = output < outputs && k < rank;
        to[r / 2 * 8 + r % 2] = valid ? convert(b[static_cast<int64_t>(output) * rank + k]) : uint16_t{0};
      }
    }
  }
}

}  // namespace

void pack_a_tile(const float* a, int32_t rank, int32_t inputs, int32_t tile, Dtype dtype, uint16_t* out) {
  if (dtype == Dtype::f16) {
    pack_a(
        a, rank, inputs, tile, [](float x) { return float_to_half(x); }, out);
  } else {
    pack_a(
        a, rank, inputs, tile, [](float x) { return float_to_bf16(x); }, out);
  }
}

void pack_b_tile(const float* b, int32_t rank, int32_t outputs, int32_t tile, Dtype dtype, uint16_t* out) {
  if (dtype == Dtype::f16) {
    pack_b(
        b, rank, outputs, tile, [](float x) { return float_to_half(x); }, out);
  } else {
    pack_b(
        b, rank, outputs, tile, [](float x) { return float_to_bf16(x); }, out);
  }
}

bool all_finite(const uint16_t* values, uint64_t count, Dtype dtype) {
  const uint16_t exponent = dtype == Dtype::f16 ? 0x7c00 : 0x7f80;
  bool finite = true;
  for (uint64_t i = 0; i < count; i++) finite &= (values[i] & exponent) != exponent;
  return finite;
}

}  // namespace lorikeet::kernels::lora
