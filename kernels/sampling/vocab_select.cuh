// One thread block's look at one row of logits: its largest value, its k best tokens, its nucleus. Everything is
// counted in integers, so that no result depends on the order in which threads arrive. Included by .cu files only.
#pragma once

#include <cstdint>

#include "kernels/cuda/device_math.cuh"
#include "kernels/sampling/philox.h"
#include "kernels/sampling/sampling_cuda.h"

namespace lorikeet::kernels::device {

inline constexpr int kSelectThreads = 1024;
inline constexpr int kSelectWarps = kSelectThreads / kWarpSize;
inline constexpr int kSelectCapacity = 8192;  // tokens that fit into shared memory
inline constexpr int kBuckets = 1024;
inline constexpr float kBucketsPerNat = 32;  // buckets count the distance from the largest value

__device__ __forceinline__ float clean(float logit) {
  return logit == logit ? logit : -INFINITY;
}

// Larger floats have larger keys, equal ones (0 and -0 are) the same.
__device__ __forceinline__ uint32_t ordered_key(float x) {
  const uint32_t bits = __float_as_uint(x + 0.0F);  // -0 + 0 is 0
  return (bits & 0x80000000U) != 0 ? ~bits : bits | 0x80000000U;
}

__device__ __forceinline__ bool better(Candidate a, Candidate b) {
  return a.value > b.value || (a.value == b.value && a.token_id < b.token_id);
}

inline constexpr int32_t kNoToken = 0x7fffffff;

__device__ __forceinline__ Candidate no_candidate() {
  return {-INFINITY, kNoToken};
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

// -log(E), E exponential: what is added to logit / temperature.
__device__ __forceinline__ float noise(uint64_t seed, int32_t position, int32_t token_id) {
  return -logf(-log1pf(-noise_uniform(noise_bits(seed, position, token_id))));
}
inline constexpr float kLargestNoise = 24;  // of noise_uniform's smallest value, rounded up

// A row of logits, possibly in pieces, divided by the temperature.
struct VocabRow {
  const float* logits = nullptr;
  int64_t piece_stride = 0;
  int pieces = 1;
  const int32_t* begins = nullptr;  // [pieces + 1]
  float divisor = 1;

  // f(value, token id), in all threads of the block together.
  template <class F>
  __device__ __forceinline__ void for_each(F&& f) const {
    for (int p = 0; p < pieces; p++) {
      const float* piece = logits + p * piece_stride;
      const int size = begins[p + 1] - begins[p];
      for (int i = threadIdx.x; i < size; i += kSelectThreads) f(clean(piece[i]) / divisor, begins[p] + i);
    }
  }
};

// Shared memory of a selection.
struct SelectShared {
  Candidate list[kSelectCapacity];
  int buckets[kBuckets];
  unsigned long long of_warp[kSelectWarps];
  Candidate best_of_warp[kSelectWarps];
  int listed;
  int bucket;
};

__device__ __forceinline__ unsigned long long block_sum(unsigned long long x, SelectShared& shared) {
#pragma unroll
  for (int offset = kWarpSize / 2; offset > 0; offset /= 2) x += __shfl_xor_sync(kFullWarp, x, offset);
  __syncthreads();  // of_warp is no longer read
  if (threadIdx.x % kWarpSize == 0) shared.of_warp[threadIdx.x / kWarpSize] = x;
  __syncthreads();
  unsigned long long total = shared.of_warp[threadIdx.x % kSelectWarps];
#pragma unroll
  for (int offset = kWarpSize / 2; offset > 0; offset /= 2) total += __shfl_xor_sync(kFullWarp, total, offset);
  return total;
}
static_assert(kSelectWarps == kWarpSize, "one value per lane");

__device__ __forceinline__ Candidate block_best(Candidate c, SelectShared& shared) {
  c = warp_best(c);
  __syncthreads();
  if (threadIdx.x % kWarpSize == 0) shared.best_of_warp[threadIdx.x / kWarpSize] = c;
  __syncthreads();
  return warp_best(shared.best_of_warp[threadIdx.x % kSelectWarps]);
}

// The tokens of a row that can matter: those nearer to the largest value than a limit, in shared memory where they fit.
class Selection {
 public:
  __device__ Selection(const VocabRow& row, SelectShared& shared) : row_(row), shared_(shared) {
    Candidate best = no_candidate();
    row_.for_each([&](float x, int id) {
      const Candidate c = {x, id};
      if (better(c, best)) best = c;
    });
    best_ = block_best(best, shared_);
  }

  __device__ Candidate best() const { return best_; }

  // Keeps at least the k best tokens and those equal to the last of them.
  __device__ void limit_to_count(int k) {
    for (int b = threadIdx.x; b < kBuckets; b += kSelectThreads) shared_.buckets[b] = 0;
    __syncthreads();
    row_.for_each([&](float x, int) { atomicAdd(&shared_.buckets[bucket(x)], 1); });
    __syncthreads();
    if (threadIdx.x == 0) {
      int counted = 0;
      int b = 0;
      for (; b < kBuckets - 1; b++) {
        counted += shared_.buckets[b];
        if (counted >= k) break;
      }
      shared_.bucket = b;
    }
    __syncthreads();
    if (shared_.bucket < kBuckets - 1) limit_ = fminf(limit_, static_cast<float>(shared_.bucket + 1));
  }

  // Keeps at least the tokens within `distance` of the best.
  __device__ void limit_to_distance(float distance) {
    limit_ = fminf(limit_, distance * kBucketsPerNat * 1.0001F + 0.01F);
  }

  // Ends the limiting: the others are looked at no more where what is left fits.
  __device__ void gather() {
    if (threadIdx.x == 0) shared_.listed = 0;
    __syncthreads();
    row_.for_each([&](float x, int id) {
      if (!near(x)) return;
      const int place = atomicAdd(&shared_.listed, 1);
      if (place < kSelectCapacity) shared_.list[place] = {x, id};
    });
    __syncthreads();
    listed_ = shared_.listed;
  }

  // f(value, token id) for what is left, in all threads of the block together.
  template <class F>
  __device__ __forceinline__ void for_each(F&& f) const {
    if (listed_ <= kSelectCapacity) {
      for (int i = threadIdx.x; i < listed_; i += kSelectThreads) f(shared_.list[i].value, shared_.list[i].token_id);
    } else {
      row_.for_each([&](float x, int id) {
        if (near(x)) f(x, id);
      });
    }
  }

  // How much of what is left satisfies f: the sum of weight(value, id), a function to unsigned integers.
  template <class Weight>
  __device__ __forceinline__ unsigned long long sum(Weight&& weight) const {
    unsigned long long total = 0;
    for_each([&](float x, int id) { total += weight(x, id); });
    return block_sum(total, shared_);
  }

  // The smallest key t of `bits` bits for which enough(t) holds; enough must hold for all ones, and for every t above
  // one for which it holds.
  template <class Enough>
  __device__ __forceinline__ static uint32_t smallest(int bits, Enough&& enough) {
    uint32_t t = bits == 32 ? 0xffffffffU : (1U << bits) - 1;
    for (int bit = bits - 1; bit >= 0; bit--) {
      const uint32_t lower = t & ~(1U << bit);
      if (enough(lower)) t = lower;
    }
    return t;
  }

  // The key of the k-th best token: the smallest t such that fewer than k keys are larger.
  __device__ uint32_t key_of_rank(int k) const {
    return smallest(32, [&](uint32_t t) {
      return sum([&](float x, int) { return ordered_key(x) > t ? 1ULL : 0ULL; }) < static_cast<unsigned long long>(k);
    });
  }

  // The id up to which `count` of the tokens with this key lie, counted from the lowest id.
  __device__ uint32_t last_of_ties(uint32_t key, unsigned long long count) const {
    return smallest(31, [&](uint32_t last) {
      return sum([&](float x, int id) {
               return ordered_key(x) == key && static_cast<uint32_t>(id) <= last ? 1ULL : 0ULL;
             }) >= count;
    });
  }

 private:
  __device__ __forceinline__ int bucket(float x) const {
    return min(static_cast<int>((best_.value - x) * kBucketsPerNat), kBuckets - 1);
  }
  __device__ __forceinline__ bool near(float x) const { return (best_.value - x) * kBucketsPerNat < limit_; }

  const VocabRow row_;
  SelectShared& shared_;
  Candidate best_;
  float limit_ = INFINITY;  // in buckets
  int listed_ = 0;
};

}  // namespace lorikeet::kernels::device
