// The one in-memory form of an int4 weight, made at load from GPTQ, AWQ or compressed-tensors order.
#pragma once

#include <cstdint>
#include <vector>

namespace lorikeet::kernels {

// W [N, K] of y = x W^T, row-major by output. W[n][k] = scale[run][n] * (q[n][k] - zero[run][n]), run = the run that
// holds k.
//
// A run is a stretch of consecutive k that share scale and zero. Plain checkpoints have one run per quantisation group.
// Checkpoints with act-order (desc_act) have their rows sorted by group within this shard and `permutation` says where
// x is taken from; weights of 8 bits are two of 4 that take the same x. Every run is a multiple of 32 long; padding
// weights have q == zero, so they are worth 0.
struct Int4Weight {
  static constexpr int kRunMultiple = 32;

  int32_t n = 0;       // outputs
  int32_t k = 0;       // inputs as stored (padding included): a multiple of 32
  int32_t x_size = 0;  // length of the x that callers pass: == k without permutation

  std::vector<uint8_t> q;            // [N, K/2], byte j of a row: element 2j in the low nibble, 2j+1 in the high one
  std::vector<int32_t> run_begin;    // [runs + 1], run r is k in [run_begin[r], run_begin[r + 1])
  std::vector<float> scale;          // [runs, N]
  std::vector<uint8_t> zero;         // [runs, N], 0..15
  std::vector<int32_t> permutation;  // empty, or [K]: stored k takes x[permutation[k]]; -1 = padding, takes 0

  int32_t runs() const { return static_cast<int32_t>(run_begin.size()) - 1; }
};

}  // namespace lorikeet::kernels
