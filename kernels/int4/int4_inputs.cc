#include <algorithm>
#include <array>

#include "kernels/int4/int4_product_simd.h"

namespace lorikeet::kernels {
namespace {

int32_t block_of(int32_t remaining, int32_t lanes) {
  int32_t block = 8 * lanes;
  while (block > remaining) block /= 2;
  return block;
}

// Nibble order: out[nibble * Words + word] = x[8 * word + nibble].
template <int32_t Words>
void take_block(const float* x, float* out) {
  for (int32_t nibble = 0; nibble < 8; ++nibble) {
    for (int32_t word = 0; word < Words; ++word) out[nibble * Words + word] = x[8 * word + nibble];
  }
}

// sums[i % 4] -= the inputs of a block of 32 in nibble order.
void take_off(const float* x, float* sums) {
  for (int32_t i = 0; i < 32; ++i) sums[i % 4] -= x[8 * (i % 4) + i / 4];
}

// What the AVX2 loop multiplies in place of nibbles: kFixed + kUnit * nibble. Its vectors come in pairs that have the
// nibbles of pairs of bytes. A lane of the first has the odd byte's, and below it a second bfloat16, with the even byte's,
// of which one bit counts kBit; the same lane of the second vector has the even byte's alone.
constexpr float kFixed = 8, kUnit = 0.5F, kBit = 0x1p-20F;
constexpr float kUnitBelow = 8 * kBit, kFixedBelow = 0x4100 * kBit;

// Takes what the products have too much, whatever the weights are, off `minus_fixed`.
template <int32_t Block>
void take_pairs(const float* x, float* out, std::array<float, 8>& minus_sums, std::array<double, 8>& minus_fixed) {
  for (int32_t pair = 0; pair < Block / 16; ++pair, out += 16) {
    float* const odd = out;
    float* const even = out + 8;
    for (int32_t lane = 0; lane < 8; ++lane) {
      const float* at = x + 16 * (pair % 2) + 4 * (lane % 4) + (Block == 64 ? 32 * (lane / 4) + pair / 2 : lane / 4);
      odd[lane] = at[2];
      even[lane] = at[0];
    }
    for (size_t lane = 0; lane < 8; ++lane) {
      minus_sums[lane] -= even[lane] + odd[lane];
      odd[lane] /= kUnit;
      even[lane] = (even[lane] - odd[lane] * kUnitBelow) / kUnit;
      minus_fixed[lane] -=
          static_cast<double>(kFixed + kFixedBelow) * odd[lane] + static_cast<double>(kFixed) * even[lane];
    }
  }
}

void prepare_avx2(const Int4View& weight, const float* x, float* row) {
  float* behind = row + weight.k;
  for (int32_t run = 0; run < weight.runs(); ++run) {
    const int32_t end = weight.run_begin[static_cast<size_t>(run) + 1];
    std::array<float, 8> minus_sums{};
    std::array<double, 8> minus_fixed{};
    for (int32_t k = weight.run_begin[static_cast<size_t>(run)], block = 0; k < end; k += block) {
      block = block_of(end - k, 8);
      block == 64 ? take_pairs<64>(x + k, row + k, minus_sums, minus_fixed)
                  : take_pairs<32>(x + k, row + k, minus_sums, minus_fixed);
    }
    behind = std::copy(minus_sums.begin(), minus_sums.end(), behind);
    behind = std::transform(minus_fixed.begin(), minus_fixed.end(), behind,
                            [](double value) { return static_cast<float>(value); });
  }
}

void prepare_neon(const Int4View& weight, const float* x, float* row) {
  float* minus_sums = row + weight.k;
  for (int32_t run = 0; run < weight.runs(); ++run, minus_sums += 4) {
    std::fill_n(minus_sums, 4, 0.0F);
    for (int32_t k = weight.run_begin[static_cast<size_t>(run)]; k < weight.run_begin[static_cast<size_t>(run) + 1];
         k += 32) {
      take_block<4>(x + k, row + k);
      take_off(x + k, minus_sums);
    }
  }
}

void prepare_avx512(const Int4View& weight, const float* x, float* row) {
  for (int32_t run = 0; run < weight.runs(); ++run) {
    const int32_t end = weight.run_begin[static_cast<size_t>(run) + 1];
    for (int32_t k = weight.run_begin[static_cast<size_t>(run)], block = 0; k < end; k += block) {
      block = block_of(end - k, 16);
      if (block == 128) take_block<16>(x + k, row + k);
      if (block == 64) take_block<8>(x + k, row + k);
      if (block == 32) take_block<4>(x + k, row + k);
    }
  }
}

}  // namespace

int32_t Int4Inputs::row_size(const Int4View& weight, CpuIsa isa) {
  return weight.k + (isa == CpuIsa::avx2 ? 16 * weight.runs() : isa == CpuIsa::neon ? 4 * weight.runs() : 0);
}

void Int4Inputs::prepare(const Int4View& weight, CpuIsa isa, const float* x, float* row) {
  if (isa == CpuIsa::avx2) return prepare_avx2(weight, x, row);
  if (isa == CpuIsa::neon) return prepare_neon(weight, x, row);
  prepare_avx512(weight, x, row);
}

}  // namespace lorikeet::kernels
