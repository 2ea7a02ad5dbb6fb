// The end of a row's filtered draw: which of the tokens about its cut are kept, and whether one of them wins. By the row's
// last CTA. Included by .cu files only.
#pragma once

#include "kernels/sampling/cut_list.cuh"

namespace lorikeet::kernels::device {

struct DrawShared {
  union {
    unsigned long long entries[kCutListed];
    OwnListed::Shared own_listed;
  };
  unsigned long long masses[kCutThreads];
  unsigned long long of_warp[kCutWarps];
  Candidate best_of_warp[kCutWarps];
};

// The sum over the threads before this one.
__device__ __forceinline__ unsigned long long sum_before(unsigned long long own,
                                                         unsigned long long (&of_warp)[kCutWarps]) {
  const int lane = threadIdx.x % kWarpSize;
  unsigned long long before = own;
#pragma unroll
  for (int offset = 1; offset < kWarpSize; offset *= 2) {
    const unsigned long long lower = __shfl_up_sync(kFullWarp, before, offset);
    if (lane >= offset) before += lower;
  }
  __syncthreads();
  if (lane == kWarpSize - 1) of_warp[threadIdx.x / kWarpSize] = before;
  __syncthreads();
  before -= own;
  for (int w = 0; w < static_cast<int>(threadIdx.x) / kWarpSize; w++) before += of_warp[w];
  return before;
}

__device__ __forceinline__ unsigned long long mass_of(const RowCut& cut, unsigned long long entry) {
  return mass(distance_of(cut, CutList::value(entry)));
}
// A token stays while those better than it are less than top_p together; the best one always does.
__device__ __forceinline__ bool stays(unsigned long long before, double kept) {
  return static_cast<double>(before) < kept || before == 0;
}
__device__ __forceinline__ double kept_mass(const CutRule& rule, unsigned long long total) {
  return static_cast<double>(rule.top_p) * static_cast<double>(total);
}

// What top_p leaves of the list, where it decides alone: only the tokens that beat those kept for sure matter, so the
// best of them is asked first whether it stays. Where it does not, nor do those worse than it. The best token in all
// threads.
__device__ __forceinline__ Candidate draw_by_mass(const CutRule& rule, const RowCut& cut, DrawShared& shared,
                                                  NoisySearch& search) {
  const unsigned long long* entries = shared.entries;
  const double kept = kept_mass(rule, cut.total);
  const Candidate sure = block_best(search.best, shared.best_of_warp);
  search.take(sure);
  unsigned long long out = 0;  // an entry: it and those behind it do not stay
  while (true) {
    NoisySearch among_listed = search;  // whose floor is that of tokens that may not stay
    among_listed.best = no_candidate();
    for (int i = threadIdx.x; i < cut.listed; i += kCutThreads) {
      if (entries[i] > out) among_listed.offer_value(CutList::value(entries[i]), CutList::token(entries[i]));
    }
    const Candidate asked = block_best(among_listed.best, shared.best_of_warp);
    if (!better(asked, sure)) return sure;
    // Its entry is known by its token (which a rank may have sent twice: all the same the loop comes nearer to its end);
    // the sum of those better than it then needs one more look.
    unsigned long long own = 0;
    for (int i = threadIdx.x; i < cut.listed; i += kCutThreads) {
      if (CutList::token(entries[i]) == asked.token_id) own = entries[i];
    }
    const unsigned long long entry = block_max(own, shared.of_warp);
    unsigned long long better = 0;
    for (int i = threadIdx.x; i < cut.listed; i += kCutThreads) {
      if (entries[i] > entry) better += mass_of(cut, entries[i]);
    }
    if (stays(cut.above + block_sum(better, shared.of_warp), kept)) return asked;
    out = entry;
  }
}

// What top_k leaves of a list of at most as many tokens as there are threads, and top_p of that: each thread looks at all
// for what is better than its own.
__device__ __forceinline__ void offer_counted(const CutRule& rule, const RowCut& cut, DrawShared& shared,
                                              NoisySearch& search) {
  const auto thread = static_cast<int>(threadIdx.x);
  const unsigned long long entry = thread < cut.listed ? shared.entries[thread] : 0;
  const unsigned long long own = thread < cut.listed && rule.by_mass() ? mass_of(cut, entry) : 0;
  shared.masses[thread] = own;
  __syncthreads();
  int larger = 0;
  unsigned long long before = 0;
#pragma unroll 4
  for (int i = 0; i < cut.listed; i++) {
    const unsigned long long other = shared.entries[i];
    if (CutList::key(other) > CutList::key(entry)) larger++;
    if (other > entry) before += shared.masses[i];
  }
  const bool counts = thread < cut.listed && larger < rule.top_k;  // what ties with the last one does, too
  bool kept = counts;
  if (rule.by_mass()) {
    const unsigned long long total = block_sum(counts ? own : 0, shared.of_warp);
    kept = counts && stays(before, kept_mass(rule, total));
  }
  if (kept) search.offer_value(CutList::value(entry), CutList::token(entry));
}

// The row's token from longer lists, put in order. What is called and does not become part of the kernel takes values, so
// that the kernel keeps its own in registers.
__device__ __noinline__ Candidate draw_sorted(CutRule rule, RowCut cut, DrawShared& shared, NoisySearch search) {
  const unsigned long long* entries = shared.entries;
  const int count = cut.listed;
  CutList::sort(count, shared.entries);
  const uint32_t lowest = CutList::key(entries[min(rule.top_k, count) - 1]);
  const int own = (count + kCutThreads - 1) / kCutThreads;
  const int begin = min(count, static_cast<int>(threadIdx.x) * own);
  const int end = min(count, begin + own);
  unsigned long long mass = 0;
  if (rule.by_mass()) {
    for (int i = begin; i < end && CutList::key(entries[i]) >= lowest; i++) mass += mass_of(cut, entries[i]);
  }
  unsigned long long before = sum_before(mass, shared.of_warp);
  const double kept = kept_mass(rule, block_sum(mass, shared.of_warp));
  for (int i = begin; i < end && CutList::key(entries[i]) >= lowest; i++) {
    if (rule.by_mass()) {
      if (!stays(before, kept)) break;
      before += mass_of(cut, entries[i]);
    }
    search.offer_value(CutList::value(entries[i]), CutList::token(entries[i]));
  }
  return block_best(search.best, shared.best_of_warp);
}

// The row's token where `search` has the best of those kept for sure and the list holds all about the cut. By all threads
// of a CTA, in all of them.
__device__ __forceinline__ Candidate draw_listed(const CutRule& rule, const RowCut& cut, const Candidate* list,
                                                 DrawShared& shared, NoisySearch& search) {
  __syncthreads();  // what is in the union is no longer used
  CutList::load(list, cut.listed, shared.entries);
  __syncthreads();
  if (!rule.by_count()) return draw_by_mass(rule, cut, shared, search);
  if (cut.listed > kCutThreads) return draw_sorted(rule, cut, shared, search);
  offer_counted(rule, cut, shared, search);
  return block_best(search.best, shared.best_of_warp);
}

// The same for rows of which more tokens lie about the cut than the list holds: of all tokens, kept ones included.
template <class AllOf>
__device__ __noinline__ Candidate draw_slowly(const CutArgs& args, CutRule rule, RowCut cut, DrawShared& shared,
                                              NoisySearch search, AllOf all_of) {
  const CutValues values(args, rule);
  const WholeRow<AllOf> whole(values, cut, shared.of_warp, all_of);
  uint32_t lowest = rule.by_count() ? whole.key_of_rank(rule.top_k) : 0;
  uint32_t last_tie = static_cast<uint32_t>(kNoToken);  // of the tokens with key `lowest`, ids up to this stay
  if (rule.by_mass()) {
    const auto mass_above = [&](uint32_t t) {
      return whole.sum([&](float x, int) {
        const uint32_t key = ordered_key(x);
        return key >= lowest && key > t ? mass(distance_of(cut, x)) : 0ULL;
      });
    };
    const unsigned long long total =
        rule.by_count()
            ? whole.sum([&](float x, int) { return ordered_key(x) >= lowest ? mass(distance_of(cut, x)) : 0ULL; })
            : cut.total;
    const double kept = static_cast<double>(rule.top_p) * static_cast<double>(total);
    const uint32_t at = WholeRow<>::smallest(32, [&](uint32_t t) { return static_cast<double>(mass_above(t)) < kept; });
    if (at >= lowest) {
      lowest = at;
      const unsigned long long each = mass(distance_of(cut, of_ordered_key(at)));
      const double missing = kept - static_cast<double>(mass_above(at));
      const double wanted = each > 0 ? ceil(missing / static_cast<double>(each)) : 1;
      last_tie = whole.last_of_ties(at, static_cast<unsigned long long>(fmin(fmax(wanted, 1), 0x1p31)));
    }
  }
  whole.for_each([&](float x, int token) {
    const uint32_t key = ordered_key(x);
    if (key > lowest || (key == lowest && static_cast<uint32_t>(token) <= last_tie)) search.offer_value(x, token);
  });
  return block_best(search.best, shared.best_of_warp);
}

}  // namespace lorikeet::kernels::device
