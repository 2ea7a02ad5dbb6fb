// The vectorised inner loops of the CPU, one set per instruction set. What calls them (the *_cpu.cc files) prepares
// their operands and shares the work out to threads; where a machine has none of the sets, it runs the plain versions
// instead.
//
// In every loop the arithmetic that makes one number is a fixed sequence, whatever tile or thread it falls into: so a
// row's result does not depend on the batch.
#pragma once

#include <cstdint>

#include "kernels/attention/attention_tile.h"
#include "kernels/cpu/cpu_isa.h"
#include "kernels/dense/dense_weight.h"
#include "kernels/int4/base/int4_weight.h"

namespace lorikeet::kernels {

// A product's activations and results. Rows of x begin on cache lines, are x_stride floats apart and have zeros between
// their end and the next multiple of 16.
struct ProductRows {
  const float* x = nullptr;
  int64_t x_stride = 0;
  int32_t m = 0;
  float* y = nullptr;  // [m, outputs], rows y_stride apart
  int64_t y_stride = 0;
};

// Outputs that a thread's part of a product begins at a multiple of.
inline constexpr int64_t kProductGrain = 8;

struct CpuKernels {
  int32_t lanes = 0;  // floats of a vector

  // Outputs [n_begin, n_end). x is in nibble order (nibble_block below).
  void (*int4_product)(const Int4Weight& weight, const ProductRows& rows, int64_t n_begin, int64_t n_end);
  void (*dense_product)(const DenseWeight& weight, const ProductRows& rows, int64_t n_begin, int64_t n_end);

  // y[j][n] = (y[j][n] + scale * sum over r of low[j][r] * b[r][n]) * factor[n] for j < m and n in [n_begin, n_end).
  // b [rank, b_stride]; rows of low are rank floats apart; factor may be null. y: m pointers to rows.
  void (*low_rank_update)(const float* low, int32_t rank, const float* b, int64_t b_stride, float scale,
                          const float* factor, float* const* y, int32_t m, int64_t n_begin, int64_t n_end);

  void (*attend)(const AttentionTile& tile, float* scratch);  // scratch [kAttentionScratch]

  void (*silu_mul)(const float* gate, const float* up, int64_t count, float* y);

  // Sum of exp(x - max) over x [count].
  float (*exp_sum)(const float* x, int64_t count, float max);
};

// Null where `isa` is plain or this machine's architecture has no such set.
const CpuKernels* cpu_kernels_of(CpuIsa isa);

// Those of best_cpu_isa().
const CpuKernels* best_cpu_kernels();

const CpuKernels* cpu_kernels_avx2();
const CpuKernels* cpu_kernels_avx512();

// A run of an int4 weight is taken in blocks: as many as fit of 8 * lanes inputs, then of half as many, down to 32.
// Within a block of B inputs the nibbles of the same place in their 4-byte words go together: the activation for
// element i of the block in nibble order is x[8 * (i % (B / 8)) + i / (B / 8)].
constexpr int32_t nibble_block(int32_t remaining, int32_t lanes) {
  int32_t block = 8 * lanes;
  while (block > remaining) block /= 2;
  return block;
}

}  // namespace lorikeet::kernels
