// A row's tokens compared on the device: keys in the order of floats, better and best, the noise of a draw. Included by
// .cu files only.
#pragma once

#include <cstdint>

#include "kernels/cuda/device_math.cuh"
#include "kernels/sampling/philox.h"
#include "kernels/sampling/sampling_cuda.h"

namespace lorikeet::kernels::device {

__device__ __forceinline__ float clean(float logit) {
  return logit == logit ? logit : -INFINITY;
}

// Larger floats have larger keys, equal ones (0 and -0 are) the same.
__device__ __forceinline__ uint32_t ordered_key(float x) {
  const uint32_t bits = __float_as_uint(x + 0.0F);  // -0 + 0 is 0
  return (bits & 0x80000000U) != 0 ? ~bits : bits | 0x80000000U;
}
__device__ __forceinline__ float of_ordered_key(uint32_t key) {
  return __uint_as_float((key & 0x80000000U) != 0 ? key & 0x7fffffffU : ~key);
}

__device__ __forceinline__ bool better(Candidate a, Candidate b) {
  return a.value > b.value || (a.value == b.value && a.token_id < b.token_id);
}

inline constexpr int32_t kNoToken = 0x7fffffff;  // loses against every token

__device__ __forceinline__ Candidate no_candidate() {
  return {-INFINITY, kNoToken};
}

// What is reported of a row: its token, or -1 where all of its logits are no numbers.
__device__ __forceinline__ int32_t drawn_token(Candidate winner) {
  return winner.token_id == kNoToken ? -1 : winner.token_id;
}

__device__ __forceinline__ Candidate warp_best(Candidate c) {
#pragma unroll
  for (int offset = kWarpSize / 2; offset > 0; offset /= 2) {
    const Candidate other = {__shfl_xor_sync(kFullWarp, c.value, offset),
                             __shfl_xor_sync(kFullWarp, c.token_id, offset)};
    if (better(other, c)) c = other;
  }
  return c;
}

// The best of a CTA's threads, in all of them; kWarps of them fill the CTA.
template <int kWarps>
__device__ __forceinline__ Candidate block_best(Candidate c, Candidate (&of_warp)[kWarps]) {
  c = warp_best(c);
  __syncthreads();  // of_warp is no longer read
  if (threadIdx.x % kWarpSize == 0) of_warp[threadIdx.x / kWarpSize] = c;
  __syncthreads();
  return warp_best(of_warp[threadIdx.x % kWarps]);
}

template <int kWarps>
__device__ __forceinline__ unsigned long long block_sum(unsigned long long x, unsigned long long (&of_warp)[kWarps]) {
#pragma unroll
  for (int offset = kWarpSize / 2; offset > 0; offset /= 2) x += __shfl_xor_sync(kFullWarp, x, offset);
  __syncthreads();  // of_warp is no longer read
  if (threadIdx.x % kWarpSize == 0) of_warp[threadIdx.x / kWarpSize] = x;
  __syncthreads();
  unsigned long long total = 0;
#pragma unroll
  for (int w = 0; w < kWarps; w++) total += of_warp[w];
  return total;
}

inline constexpr float kLargestNoise = 24;  // of noise_uniform's smallest value, rounded up

// -log(E), E exponential: what is added to logit / temperature.
__device__ __forceinline__ float noise_of(uint32_t bits) {
  return -logf(-log1pf(-noise_uniform(bits)));
}
// At least that, without a logarithm: E = -log(1 - u) >= u >= 2^-(1 + leading zeros).
__device__ __forceinline__ float noise_bound(uint32_t bits) {
  return static_cast<float>(__clz(static_cast<int>(bits)) + 1) * 0.6931472F + 1e-3F;
}
// Takes the place of `best` if its noisy value is better. The noise is made no further than it can decide that.
__device__ __forceinline__ void offer_noisy(float x, int32_t token_id, uint64_t seed, int32_t position,
                                            Candidate& best) {
  const bool first = best.token_id == kNoToken;
  if (!first && x + kLargestNoise < best.value) return;
  const uint32_t bits = noise_bits(seed, position, token_id);
  if (!first && x + noise_bound(bits) < best.value) return;
  const Candidate c = {x + noise_of(bits), token_id};
  if (better(c, best)) best = c;
}

}  // namespace lorikeet::kernels::device
