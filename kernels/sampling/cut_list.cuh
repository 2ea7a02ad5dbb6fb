// The tokens about a row's cut: how CTAs list them, what the row's last CTA sees of them, and what it does where there are
// more than a list holds. Included by .cu files only.
#pragma once

#include "kernels/sampling/vocab_cut.cuh"

namespace lorikeet::kernels::device {

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

  // Takes count <= kCutListed candidates into `entries` [kCutListed]. By all threads of a CTA; a barrier must follow.
  __device__ __forceinline__ static void load(const Candidate* from, int count, unsigned long long* entries) {
    for (int i = threadIdx.x; i < count; i += kCutThreads) {
      const float2 raw = __ldcg(reinterpret_cast<const float2*>(from) + i);
      entries[i] = static_cast<unsigned long long>(ordered_key(raw.x)) << 32 | ~__float_as_uint(raw.y);
    }
  }

  // Sorts what was loaded. By all threads of a CTA.
  __device__ __forceinline__ static void sort(int count, unsigned long long* entries) {
    int size = 1;
    while (size < count) size *= 2;
    for (int i = count + static_cast<int>(threadIdx.x); i < size; i += kCutThreads) entries[i] = 0;  // behind all
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

// A CTA's part of a row's list: gathered in shared memory, then put into the row's, so that its threads do not wait one by
// one for their places there.
class OwnListed {
 public:
  static constexpr int kMost = 1024;
  struct Shared {
    Candidate tokens[kMost];
    int count;
    int begin;
  };

  // By all threads; a barrier must follow.
  __device__ __forceinline__ OwnListed(Shared& shared, RowCut& cut, Candidate* list)
      : shared_(shared), cut_(cut), list_(list) {
    if (threadIdx.x == 0) shared.count = 0;
  }
  __device__ __forceinline__ void add(Candidate c) const {
    const int place = atomicAdd(&shared_.count, 1);
    if (place < kMost) {
      shared_.tokens[place] = c;
    } else {
      put(atomicAdd(&cut_.listed, 1), c);
    }
  }
  // By all threads, behind the last token; a barrier must follow before the memory is used for something else.
  __device__ __forceinline__ void flush() const {
    __syncthreads();
    const int count = min(shared_.count, kMost);
    if (count == 0) return;
    if (threadIdx.x == 0) shared_.begin = atomicAdd(&cut_.listed, count);
    __syncthreads();
    for (int i = threadIdx.x; i < count; i += kCutThreads) put(shared_.begin + i, shared_.tokens[i]);
  }

 private:
  __device__ __forceinline__ void put(int place, Candidate c) const {
    if (place < kCutListed) list_[place] = c;
  }

  Shared& shared_;
  RowCut& cut_;
  Candidate* const list_;
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

}  // namespace lorikeet::kernels::device
