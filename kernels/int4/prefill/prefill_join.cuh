// How the clusters of one block or two that share an area (kernels/int4/prefill/prefill.cuh, prefill_pairs.cuh) make one sum
// of theirs, each block of a cluster with those of the same rank. Included by .cu files only.
#pragma once

#include "kernels/cuda/device_math.cuh"
#include "kernels/cuda/done_counter.cuh"
#include "kernels/int4/base/output.cuh"
#include "kernels/int4/prefill/prefill_walk.h"

namespace lorikeet::kernels::int4 {

inline constexpr int kConsumers = kPrefillTiles * device::kWarpSize;  // threads

struct PrefillParams {
  OutputParams out;
  bool wide;  // y takes stores of four outputs
  int32_t m, tiles;
  int32_t column_areas;  // of the same tiles
  PrefillDivision division;
  bool look_first;  // whether a cluster often finds all other parts of an area there, so that it need not leave its own
  float4* sums;     // [2 * clusters][rank] places of [fragment][thread], where areas are shared
  int* arrived;     // [clusters][rank], 0 between products
};

#if __CUDA_ARCH__ >= 900

__device__ __forceinline__ void consumers_barrier() {
  asm volatile("bar.sync 1, %0;" ::"n"(kConsumers) : "memory");
}
__device__ __forceinline__ int look_at(const int* counter) {
  int seen;
  asm volatile("ld.acquire.gpu.global.s32 %0, [%1];" : "=r"(seen) : "l"(counter) : "memory");
  return seen;
}

// So many loads are in flight as there are registers for.
template <int kSums>
__device__ __forceinline__ void add_sums(const float4* from, float (&sum)[kSums]) {
  constexpr int kFragments = kSums / 4;
  constexpr int kAtOnce = kFragments <= 10 ? kFragments : kFragments / 2;
  static_assert(kFragments % kAtOnce == 0);
#pragma unroll
  for (int begin = 0; begin < kFragments; begin += kAtOnce) {
    float v[kAtOnce][4];
#pragma unroll
    for (int i = 0; i < kAtOnce; i++) {
      asm volatile("ld.global.cg.v4.f32 {%0, %1, %2, %3}, [%4];"
                   : "=f"(v[i][0]), "=f"(v[i][1]), "=f"(v[i][2]), "=f"(v[i][3])
                   : "l"(from + (begin + i) * kConsumers)
                   : "memory");
    }
#pragma unroll
    for (int i = 0; i < kAtOnce; i++) {
#pragma unroll
      for (int e = 0; e < 4; e++) sum[4 * (begin + i) + e] += v[i][e];
    }
  }
}

// By all consumers, of an area of which other clusters make the rest. Leaves what this block has of it and returns false
// if one is still to come; otherwise adds what the others have left, in the order of k. arrived: [2], shared.
template <int kBlocks, int kSums>
__device__ __forceinline__ bool join_parts(const PrefillParams& p, int area, int* arrived, float (&sum)[kSums]) {
  const int64_t steps = p.division.shared_steps();
  const int64_t begin = static_cast<int64_t>(area - p.division.first_shared()) * p.division.units;
  const int cluster = static_cast<int>(blockIdx.x) / kBlocks;
  const int rank = static_cast<int>(blockIdx.x) % kBlocks;
  const int first = walker_of(begin, steps, p.division.clusters);
  const int last = walker_of(begin + p.division.units - 1, steps, p.division.clusters);
  const auto sums_of = [&](int of) {
    const int place = place_of_sums(steps, of, p.division.clusters, begin);
    return p.sums + static_cast<int64_t>(place * kBlocks + rank) * (kSums / 4 * kConsumers) + threadIdx.x;
  };
  int* counter = p.arrived + last * kBlocks + rank;  // the cluster that ends an area ends no other that it shares
  bool all_there = false;
  if (p.look_first) {
    consumers_barrier();  // all have read what `arrived` said before
    if (threadIdx.x == 0) arrived[0] = look_at(counter);
    consumers_barrier();
    all_there = arrived[0] == last - first;
  }
  // Addition commutes: the first two parts may come in any order. A later one waits its turn in its place.
  const bool in_turn = cluster - first < 2;
  if (!all_there || !in_turn) {
    float4* mine = sums_of(cluster);
#pragma unroll
    for (int i = 0; i < kSums / 4; i++) {
      mine[i * kConsumers] = make_float4(sum[4 * i], sum[4 * i + 1], sum[4 * i + 2], sum[4 * i + 3]);
    }
  }
  if (!all_there) {
    consumers_barrier();
    if (threadIdx.x == 0) arrived[1] = device::add_and_see(counter, 1);
    consumers_barrier();
    if (arrived[1] < last - first) return false;
  }
  if (!in_turn) {
#pragma unroll
    for (int i = 0; i < kSums; i++) sum[i] = 0;
  }
#pragma unroll 1
  for (int of = first; of <= last; of++) {
    if (of != cluster || !in_turn) add_sums(sums_of(of), sum);
  }
  if (threadIdx.x == 0) *counter = 0;
  return true;
}

#endif

}  // namespace lorikeet::kernels::int4
