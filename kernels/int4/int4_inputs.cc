#include <algorithm>

#include "kernels/int4/int4_product_simd.h"

namespace lorikeet::kernels {
namespace {

bool scales_runs(CpuIsa isa) {
  return isa == CpuIsa::avx2;
}

int32_t block_of(int32_t remaining, int32_t lanes) {
  int32_t block = 8 * lanes;
  while (block > remaining) block /= 2;
  return block;
}

// out[nibble * words + word] = x[8 * word + nibble], times 16^-nibble where `in_place`.
void take_block(const float* x, int32_t words, bool in_place, float* out) {
  float factor = 1;
  for (int32_t nibble = 0; nibble < 8; ++nibble) {
    for (int32_t word = 0; word < words; ++word) out[nibble * words + word] = x[8 * word + nibble] * factor;
    if (in_place) factor = nibble < 6 ? factor / 16 : 1;
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
      const int32_t words = block / 8;
      take_block(x + k, words, scales_runs(isa) && words == lanes, row + k);
      if (!scales_runs(isa)) continue;
      for (int32_t nibble = 0; nibble < 8; ++nibble) {
        for (int32_t word = 0; word < words; ++word) sums[(nibble * words + word) % lanes] += x[k + 8 * word + nibble];
      }
    }
    if (scales_runs(isa)) sums += lanes;
  }
}

}  // namespace lorikeet::kernels
