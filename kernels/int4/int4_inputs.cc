#include <algorithm>

#include "kernels/int4/int4_product_simd.h"

namespace lorikeet::kernels {
namespace {

bool scales_runs(CpuIsa isa) {
  return isa == CpuIsa::avx2 || isa == CpuIsa::neon;
}

int32_t block_of(int32_t remaining, int32_t lanes) {
  int32_t block = 8 * lanes;
  while (block > remaining) block /= 2;
  return block;
}

// out[nibble * Words + word] = x[8 * word + nibble], times 16^-nibble where `InPlace`. Adds the inputs of a run to its
// vector of sums.
template <int32_t Words, bool InPlace>
void take_block(const float* x, float* out) {
  for (int32_t nibble = 0; nibble < 8; ++nibble) {
    const float factor = InPlace && nibble < 7 ? 1.0F / static_cast<float>(1 << 4 * nibble) : 1.0F;
    for (int32_t word = 0; word < Words; ++word) out[nibble * Words + word] = x[8 * word + nibble] * factor;
  }
}

// sums[i % Lanes] += the block's inputs in nibble order.
template <int32_t Words, int32_t Lanes>
void add_block(const float* x, float* sums) {
  for (int32_t first = 0; first < 8 * Words; first += Lanes) {
    for (int32_t lane = 0; lane < Lanes; ++lane) {
      const int32_t i = first + lane;
      sums[lane] += x[8 * (i % Words) + i / Words];
    }
  }
}

}  // namespace

int32_t Int4Inputs::row_size(const Int4View& weight, CpuIsa isa) {
  return weight.k + (scales_runs(isa) ? weight.runs() * lanes_of(isa) : 0);
}

void Int4Inputs::prepare(const Int4View& weight, CpuIsa isa, const float* x, float* row) {
  const int32_t lanes = lanes_of(isa);
  float* sums = row + weight.k;
  for (int32_t run = 0; run < weight.runs(); ++run) {
    const int32_t end = weight.run_begin[static_cast<size_t>(run) + 1];
    if (scales_runs(isa)) std::fill_n(sums, lanes, 0.0F);
    for (int32_t k = weight.run_begin[static_cast<size_t>(run)], block = 0; k < end; k += block) {
      block = block_of(end - k, lanes);
      if (isa == CpuIsa::neon) {
        take_block<4, false>(x + k, row + k);
        add_block<4, 4>(x + k, sums);
      } else if (isa == CpuIsa::avx2) {
        block == 64 ? take_block<8, true>(x + k, row + k) : take_block<4, false>(x + k, row + k);
        block == 64 ? add_block<8, 8>(x + k, sums) : add_block<4, 8>(x + k, sums);
      } else if (block == 128) {
        take_block<16, false>(x + k, row + k);
      } else {
        block == 64 ? take_block<8, false>(x + k, row + k) : take_block<4, false>(x + k, row + k);
      }
    }
    if (scales_runs(isa)) sums += lanes;
  }
}

}  // namespace lorikeet::kernels
