// What the kernels about kernels/sampling/vocab_cut.h share. Included by .cu files only.
#pragma once

#include "kernels/cuda/async_copy.cuh"
#include "kernels/sampling/candidate.cuh"
#include "kernels/sampling/vocab_cut.h"

namespace lorikeet::kernels::device {

inline constexpr int kCutThreads = 256;
inline constexpr int kCutWarps = kCutThreads / kWarpSize;
inline constexpr int kOwnTokens = kCutChunk / kCutThreads;  // of a thread

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

// This thread's tokens of a chunk, all asked for at once. No kernel of a cut writes what is read here, so the second and
// the third ask before they wait for the one in front.
class OwnTokens {
 public:
  __device__ __forceinline__ OwnTokens(const CutValues& values, int chunk)
      : first_(values.args.begins[0] + chunk * kCutChunk + static_cast<int>(threadIdx.x)) {
    const int end = values.args.begins[values.args.pieces];
#pragma unroll
    for (int i = 0; i < kOwnTokens; i++) {
      const int token = first_ + i * kCutThreads;
      x_[i] = token < end && values.rule.asked ? values(token) : NAN;
    }
  }

  // f(value, token).
  template <class F>
  __device__ __forceinline__ void for_each(F&& f) const {
#pragma unroll
    for (int i = 0; i < kOwnTokens; i++) {
      if (x_[i] == x_[i]) f(x_[i], first_ + i * kCutThreads);
    }
  }

 private:
  const int first_;
  float x_[kOwnTokens];
};

// Of a value from the best one; equal infinities are 0 apart.
__device__ __forceinline__ float distance_of(const RowCut& cut, float x) {
  return x == cut.best.value ? 0.0F : cut.best.value - x;
}
__device__ __forceinline__ int bin_of(const RowCut& cut, float x) {
  return static_cast<int>(fminf(distance_of(cut, x) * cut.bins_per_nat, static_cast<float>(kCutBins - 1)));
}

// Probability relative to the best token's, in units of 2^-39: sums are exact and independent of order. Parts of
// kMassSplit bits of a chunk's tokens add up in 32 bits.
inline constexpr int kMassSplit = 20;
__device__ __forceinline__ unsigned long long mass(float distance) {
  return __float2ull_rn(expf(-distance) * 0x1p39F);
}
static_assert(kCutChunk <= 1 << (32 - kMassSplit), "parts of the sum would overflow");

// Tokens about the cut in order, the best first and of equal ones the lower id: in shared memory.
class CutList {
 public:
  __device__ __forceinline__ static float value(unsigned long long entry) {
    return of_ordered_key(static_cast<uint32_t>(entry >> 32));
  }
  __device__ __forceinline__ static uint32_t key(unsigned long long entry) {
    return static_cast<uint32_t>(entry >> 32);
  }
  __device__ __forceinline__ static int token(unsigned long long entry) {
    return static_cast<int>(~static_cast<uint32_t>(entry));
  }

  // Takes count <= kCutListed candidates into `entries` [kCutListed] and sorts them there. By all threads of a CTA.
  __device__ __forceinline__ static void sort(const Candidate* from, int count, unsigned long long* entries) {
    int size = 1;
    while (size < count) size *= 2;
    for (int i = threadIdx.x; i < size; i += kCutThreads) {
      unsigned long long entry = 0;  // behind all
      if (i < count) {
        const float2 raw = __ldcg(reinterpret_cast<const float2*>(from) + i);
        entry = static_cast<unsigned long long>(ordered_key(raw.x)) << 32 | ~__float_as_uint(raw.y);
      }
      entries[i] = entry;
    }
    for (int width = 2; width <= size; width *= 2) {
      for (int apart = width / 2; apart > 0; apart /= 2) {
        __syncthreads();
        for (int pair = threadIdx.x; pair < size / 2; pair += kCutThreads) {
          const int low = pair / apart * 2 * apart + pair % apart;
          const unsigned long long a = entries[low];
          const unsigned long long b = entries[low + apart];
          const bool descending = (low & width) == 0;
          if ((a < b) == descending) {
            entries[low] = b;
            entries[low + apart] = a;
          }
        }
      }
    }
    __syncthreads();
  }
};

// What a row's sum is where nobody else has a part of it.
struct OwnSum {
  __device__ __forceinline__ unsigned long long operator()(unsigned long long own) const { return own; }
};

// Halvings of the range of keys, each of which looks at the whole row: for the rare rows of which more tokens lie about
// the cut than a list holds (thousands of equal ones, or a top_k of thousands). By all threads of one CTA. all_of(sum of
// this part): that of all parts.
template <class AllOf = OwnSum>
class WholeRow {
 public:
  __device__ __forceinline__ WholeRow(const CutValues& values, const RowCut& cut,
                                      unsigned long long (&of_warp)[kCutWarps], AllOf all_of = {})
      : values_(values), least_(cut.least), of_warp_(of_warp), all_of_(all_of) {}

  // f(value, token) of this part.
  template <class F>
  __device__ __forceinline__ void for_each(F&& f) const {
    const int end = values_.args.begins[values_.args.pieces];
    for (int token = values_.args.begins[0] + static_cast<int>(threadIdx.x); token < end; token += kCutThreads) {
      const float x = values_(token);
      if (x >= least_) f(x, token);
    }
  }
  template <class Weight>
  __device__ __forceinline__ unsigned long long sum(Weight&& weight) const {
    unsigned long long total = 0;
    for_each([&](float x, int token) { total += weight(x, token); });
    return all_of_(block_sum(total, of_warp_));
  }

  // The smallest t of `bits` bits for which enough(t) holds; enough must hold for all ones, and for every t above one
  // for which it holds.
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
  __device__ __forceinline__ uint32_t key_of_rank(int k) const {
    return smallest(32, [&](uint32_t t) {
      return sum([&](float x, int) { return ordered_key(x) > t ? 1ULL : 0ULL; }) < static_cast<unsigned long long>(k);
    });
  }
  // The id up to which `count` of the tokens with this key lie, counted from the lowest id.
  __device__ __forceinline__ uint32_t last_of_ties(uint32_t key, unsigned long long count) const {
    return smallest(31, [&](uint32_t last) {
      return sum([&](float x, int token) {
               return ordered_key(x) == key && static_cast<uint32_t>(token) <= last ? 1ULL : 0ULL;
             }) >= count;
    });
  }

 private:
  const CutValues& values_;
  const float least_;
  unsigned long long (&of_warp_)[kCutWarps];
  const AllOf all_of_;
};

// Whether this CTA is the last of its row to come here; what the others have written is then visible to all of its
// threads. The counter is left at 0.
__device__ __forceinline__ bool last_of_row(int32_t* arrivals) {
  __shared__ bool is_last;
  __threadfence();
  __syncthreads();
  if (threadIdx.x == 0) {
    is_last = atomicAdd(arrivals, 1) == static_cast<int>(gridDim.x) - 1;
    if (is_last) *arrivals = 0;
    __threadfence();
  }
  __syncthreads();
  return is_last;
}

}  // namespace lorikeet::kernels::device
