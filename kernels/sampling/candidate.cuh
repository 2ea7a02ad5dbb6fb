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

template <int kWarps>
__device__ __forceinline__ unsigned long long block_max(unsigned long long x, unsigned long long (&of_warp)[kWarps]) {
#pragma unroll
  for (int offset = kWarpSize / 2; offset > 0; offset /= 2) x = max(x, __shfl_xor_sync(kFullWarp, x, offset));
  __syncthreads();  // of_warp is no longer read
  if (threadIdx.x % kWarpSize == 0) of_warp[threadIdx.x / kWarpSize] = x;
  __syncthreads();
  unsigned long long most = 0;
#pragma unroll
  for (int w = 0; w < kWarps; w++) most = max(most, of_warp[w]);
  return most;
}

// -log(E), E exponential: what is added to logit / temperature.
__device__ __forceinline__ float noise_of(uint32_t bits) {
  return -logf(-log1pf(-noise_uniform(bits)));
}
// At least that, in three instructions: E = -log(1 - u) >= u. Near to it where it is large, so where it matters.
__device__ __forceinline__ float noise_bound(uint32_t bits) {
  float log2;
  asm("lg2.approx.ftz.f32 %0, %1;" : "=f"(log2) : "f"(static_cast<float>(bits)));
  return fmaf(-0.6931472F, log2, 32 * 0.6931472F + 1e-3F);
}

// Element i of few that lie in registers.
template <class T, int kCount>
__device__ __forceinline__ T pick(const T (&of)[kCount], int i) {
  T picked = of[0];
#pragma unroll
  for (int j = 1; j < kCount; j++) {
    if (j == i) picked = of[j];
  }
  return picked;
}

// A thread's search for the best noisy token of a row. Philox and one bound are all that a token costs unless it can win:
// what cannot reach the floor, the noisy value of some token that takes part, is passed over.
class NoisySearch {
 public:
  __device__ __forceinline__ explicit NoisySearch(const DrawRow& row)
      : noise_(row.seed, row.position), temperature_(row.temperature), inverse_(1 / row.temperature) {}

  Candidate best = no_candidate();

  __device__ __forceinline__ float floor() const { return floor_; }
  // Of a token that takes part in the draw.
  __device__ __forceinline__ void raise_floor(float noisy) {
    if (!(noisy > floor_)) return;
    floor_ = noisy;
    // x is taken as a product below, which is less exact than the quotient that counts.
    reach_ = noisy - 1e-6F * (fabsf(noisy) + 64);
  }
  __device__ __forceinline__ void take(Candidate c) {
    if (better(c, best)) best = c;
    if (c.token_id != kNoToken) raise_floor(c.value);
  }

  // Offers those of the tokens first, first + step, ... whose bit of `wanted` is set.
  template <int kCount>
  __device__ __forceinline__ void offer(const float (&logits)[kCount], int first, int step, unsigned wanted) {
    if (wanted == 0) return;
    uint32_t bits[kCount];
    unsigned open = 0;
#pragma unroll
    for (int i = 0; i < kCount; i++) {
      bits[i] = noise_.bits(first + i * step);
      if (!(fmaf(logits[i], inverse_, noise_bound(bits[i])) < reach_)) open |= 1U << i;
    }
    for (open &= wanted; open != 0; open &= open - 1) {  // rarely any
      const int i = __ffs(static_cast<int>(open)) - 1;
      const float logit = pick(logits, i);
      if (logit != logit) continue;
      take({logit / temperature_ + noise_of(pick(bits, i)), first + i * step});
    }
  }
  // One token, of value x = logit / temperature.
  __device__ __forceinline__ void offer_value(float x, int token) {
    const uint32_t bits = noise_.bits(token);
    if (x + noise_bound(bits) < reach_) return;
    take({x + noise_of(bits), token});
  }

 private:
  const RowNoise noise_;
  const float temperature_;
  const float inverse_;
  float floor_ = -INFINITY;
  float reach_ = -INFINITY;
};

// Whether this CTA is the last of its row to come here; what the others have written is then visible to all of its
// threads where they ask the L2 (__ldcg). The counter is left at 0. One thread releases what the barrier has gathered: a
// fence of each would cost every CTA its L1.
__device__ __forceinline__ bool last_of_row(int32_t* arrivals) {
  __shared__ bool is_last;
  __syncthreads();
  if (threadIdx.x == 0) {
    int32_t before;
    asm volatile("atom.add.release.gpu.global.s32 %0, [%1], 1;" : "=r"(before) : "l"(arrivals) : "memory");
    is_last = before == static_cast<int32_t>(gridDim.x) - 1;
    if (is_last) {
      *arrivals = 0;
      __threadfence();
    }
  }
  __syncthreads();
  return is_last;
}

}  // namespace lorikeet::kernels::device
