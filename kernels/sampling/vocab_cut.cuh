// What the kernels about kernels/sampling/vocab_cut.h share. Included by .cu files only.
#pragma once

#include "kernels/cuda/async_copy.cuh"
#include "kernels/sampling/candidate.cuh"
#include "kernels/sampling/vocab_cut.h"

namespace lorikeet::kernels::device {

// How a row's tokens are filtered.
struct CutRule {
  int32_t logits_row = 0;
  float divisor = 1;
  int32_t top_k = 0;  // 0: off
  float top_p = 1;    // 1: off
  float min_p = 0;    // 0: off
  bool asked = false;
  bool nan_is_least = false;  // what is not a number counts as -infinity; otherwise it is out

  __device__ __forceinline__ CutRule(const CutArgs& args, int row) {
    const int vocab = args.all_tokens();
    if (args.draws != nullptr) {
      const DrawRow& draw = args.draws[row];
      logits_row = draw.logits_row;
      divisor = draw.temperature;
      top_k = draw.top_k < vocab ? draw.top_k : 0;
      top_p = draw.top_p;
      min_p = draw.min_p;
      asked = draw.draw_row >= 0;
    } else {
      const LogprobRow& list = args.lists[row];
      logits_row = list.logits_row;
      top_k = list.top < vocab ? list.top : 0;
      asked = list.top > 0;
      nan_is_least = true;
    }
  }
  __device__ __forceinline__ bool by_count() const { return top_k > 0; }
  __device__ __forceinline__ bool by_mass() const { return top_p < 1; }
};

// A row's values. One that is out is not a number.
struct CutValues {
  const CutArgs& args;
  const CutRule& rule;
  const float* logits;

  __device__ __forceinline__ CutValues(const CutArgs& args, const CutRule& rule)
      : args(args), rule(rule), logits(args.logits + (rule.logits_row - args.first_logits_row) * args.stride) {}

  __device__ __forceinline__ float operator()(int token) const {
    int piece = 0;
    while (piece + 1 < args.pieces && token >= args.begins[piece + 1]) piece++;
    const float logit = __ldg(logits + piece * args.piece_stride + (token - args.begins[piece]));
    return (rule.nan_is_least ? clean(logit) : logit) / rule.divisor;
  }
};

// x / divisor as a division rounds it, of a divisor that many x share: the remainder of the product with the reciprocal
// rights its last bit. What could leave the range in which that is so is divided.
class Quotient {
 public:
  __device__ __forceinline__ explicit Quotient(float divisor)
      : divisor_(divisor), inverse_(1 / divisor), most_(divisor > 0x1p-60F && divisor < 0x1p60F ? 0x1p60F : 0) {}

  __device__ __forceinline__ float operator()(float x) const {
    float quotient = x * inverse_;
    const float size = fabsf(quotient);
    quotient = fmaf(fmaf(-quotient, divisor_, x), inverse_, quotient);
    return size > 0x1p-20F && size < most_ ? quotient : x / divisor_;
  }

 private:
  const float divisor_;
  const float inverse_;
  const float most_;
};

// This thread's tokens of a CTA's chunk, kCutBatch at a time; what is not there is not a number.
class OwnTokens {
 public:
  __device__ __forceinline__ OwnTokens(const CutValues& values) {
    const CutArgs& args = values.args;
    int chunk = blockIdx.x;
    int piece = 0;
    for (; piece + 1 < args.pieces && chunk >= args.chunks_of(piece); piece++) chunk -= args.chunks_of(piece);
    const int column = chunk * args.batches * kCutLeastChunk + static_cast<int>(threadIdx.x);
    first_ = args.begins[piece] + column;
    left_ = values.rule.asked ? args.begins[piece + 1] - first_ : 0;
    logits_ = values.logits + piece * args.piece_stride + column;
    nan_is_least_ = values.rule.nan_is_least;
  }

  __device__ __forceinline__ int first(int batch) const { return first_ + batch * kCutLeastChunk; }
  __device__ __forceinline__ void load(int batch, float (&logits)[kCutBatch]) const {
    const float* own = logits_ + batch * kCutLeastChunk;
#pragma unroll
    for (int i = 0; i < kCutBatch; i++) {
      logits[i] = NAN;
      if (batch * kCutLeastChunk + i * kCutThreads < left_) logits[i] = __ldg(own + i * kCutThreads);
    }
  }
  __device__ __forceinline__ void none(float (&logits)[kCutBatch]) const {
#pragma unroll
    for (int i = 0; i < kCutBatch; i++) logits[i] = NAN;
  }
  // Of what was loaded: apart from it, so that nothing waits for it before it must.
  __device__ __forceinline__ void clean_if_least(int batch, float (&logits)[kCutBatch]) const {
    if (!nan_is_least_) return;
#pragma unroll
    for (int i = 0; i < kCutBatch; i++) {
      if (batch * kCutLeastChunk + i * kCutThreads < left_) logits[i] = clean(logits[i]);
    }
  }

  // f(logits, first token), whose steps are kCutThreads, for the batches; the first one is there, and the next is asked
  // for before one is looked at. No kernel of a cut writes what is read here, so the second and the third load their
  // first batch before they wait for the kernel in front.
  template <class F>
  __device__ __forceinline__ void for_each_batch(int batches, float (&logits)[kCutBatch], F&& f) const {
#pragma unroll 1
    for (int batch = 0; batch < batches; batch++) {
      float next[kCutBatch] = {};
      if (batch + 1 < batches) load(batch + 1, next);
      clean_if_least(batch, logits);
      f(logits, first(batch));
#pragma unroll
      for (int i = 0; i < kCutBatch; i++) logits[i] = next[i];
    }
  }

 private:
  int first_;
  int left_;  // tokens of the piece from the first on
  const float* logits_;
  bool nan_is_least_;
};

// Parts of a chunk whose best logits find_best keeps: what each warp has, or with one batch, all.
__device__ __forceinline__ int parts_of_chunk(int batches) {
  return batches > 1 ? kCutWarps : 1;
}
// Whether the best logit of this warp's part of a chunk is out, and so all of them.
__device__ __forceinline__ bool part_is_out(const CutArgs& args, const RowCut& cut) {
  const int parts = parts_of_chunk(args.batches);
  const int part = static_cast<int>(threadIdx.x) * parts / kCutThreads;
  const size_t chunk = static_cast<size_t>(blockIdx.y) * gridDim.x + blockIdx.x;
  return __ldcg(args.workspace.best_of_part + chunk * parts + part) < cut.least_logit;
}

// A logit that at least `wanted` of a row's parts, at most kMost, reach, and few more: the upper bits of the one in that
// place. By a warp.
template <int kMost>
__device__ __forceinline__ float last_of_best_parts(const float* best_of_part, int parts, int wanted) {
  constexpr int kOwn = kMost / kWarpSize;
  const int lane = static_cast<int>(threadIdx.x) % kWarpSize;
  uint32_t own[kOwn];
#pragma unroll
  for (int i = 0; i < kOwn; i++) {
    const int part = lane + i * kWarpSize;
    own[i] = part < parts ? ordered_key(__ldcg(best_of_part + part)) : 0;
  }
  uint32_t key = 0;
#pragma unroll 1
  for (uint32_t bit = 1U << 31; bit >= 1U << 13; bit >>= 1) {
    int reached = 0;
#pragma unroll
    for (int i = 0; i < kOwn; i++) reached += own[i] >= (key | bit) ? 1 : 0;
    if (__reduce_add_sync(kFullWarp, reached) >= wanted) key |= bit;
  }
  const float logit = of_ordered_key(key);
  return logit == logit ? logit : -INFINITY;
}

// The smallest logit whose quotient may reach `least`.
__device__ __forceinline__ float least_logit_of(float least, float divisor) {
  return least > -INFINITY ? (least - 1e-6F * fabsf(least) - 1e-30F) * divisor : -INFINITY;
}

// Of a value from the best one; equal infinities are 0 apart.
__device__ __forceinline__ float distance_of(const RowCut& cut, float x) {
  return x == cut.best.value ? 0.0F : cut.best.value - x;
}
__device__ __forceinline__ int bin_of(const RowCut& cut, float x) {
  return static_cast<int>(fminf(distance_of(cut, x) * cut.bins_per_nat, static_cast<float>(kCutBins - 1)));
}

// To a counter in shared memory, by its address there: computed once, not for every token.
__device__ __forceinline__ void add_shared(uint32_t address, uint32_t x) {
  asm volatile("red.shared.add.u32 [%0], %1;" ::"r"(address), "r"(x) : "memory");
}

// Probability relative to the best token's, in units of 2^-39: sums are exact and independent of order. Parts of
// kMassSplit bits of a chunk's tokens add up in 32 bits.
inline constexpr int kMassSplit = 20;
__device__ __forceinline__ unsigned long long mass(float distance) {
  return __float2ull_rn(expf(-distance) * 0x1p39F);
}
static_assert(kCutCountedBatches * kCutLeastChunk <= 1 << (32 - kMassSplit), "parts of the sum would overflow");

}  // namespace lorikeet::kernels::device
