// The kernel of kernels/int4/prefill/int4_prefill.h in which a cluster of two blocks makes an area: each half of the
// outputs. x comes to both at once. Two groups of four warps, a side, have all of a block's outputs, and the two sides take
// the units in turn. To prefill.cuh's that is half of the sums to be joined where areas are shared, and units that take 8 %
// longer. Included by .cu files only.
#pragma once

#include "kernels/cuda/async_copy.cuh"
#include "kernels/cuda/device_math.cuh"
#include "kernels/cuda/wgmma.cuh"
#include "kernels/int4/base/fragment.cuh"
#include "kernels/int4/base/layout.h"
#include "kernels/int4/base/output.cuh"
#include "kernels/int4/prefill/cluster_stages.cuh"
#include "kernels/int4/prefill/prefill_join.cuh"
#include "kernels/int4/prefill/prefill_stages.cuh"
#include "kernels/int4/prefill/prefill_store.cuh"
#include "kernels/int4/prefill/prefill_walk.h"

namespace lorikeet::kernels::int4 {

inline constexpr int kPairTiles = kPrefillTiles / 2;  // of a block
inline constexpr int kSides = 2;  // of a block, which take the units in turn, each with all its tiles

#if defined(__CUDA_ARCH_FEAT_SM90_ALL)

// The stages as one side waits for them. Each side has barriers of its own, all of whose phases it sees: those of the
// other side's stages pass it by.
class SideStages {
 public:
  __device__ __forceinline__ explicit SideStages(uint32_t full) : full_(full) {}
  __device__ __forceinline__ void wait(int stage) {
    device::barrier_wait(full_ + stage * 8, phases_ >> stage & 1);
    phases_ ^= 1U << stage;
  }

 private:
  uint32_t full_;
  uint32_t phases_ = 0;  // a bit for each stage
};

// By one thread: asks for all that the block consumes, and of x half of what its cluster does. Behind the units of each
// part follow kSides stages for which nothing is asked, in which the sides exchange sums.
template <class Format, int kColumns>
__device__ __forceinline__ void request_pairs(const PrefillParams& p, const CUtensorMap* weight_map,
                                              const CUtensorMap* x_map, uint32_t base, uint32_t full, uint32_t empty,
                                              int rank) {
  using Stage = PrefillStage<Format, kColumns, kPairTiles>;
  constexpr int kStages = Stage::kStages;
  const auto full_of = [&](int side, int stage) { return full + (side * kMostStages + stage) * 8; };
  const auto expect_weights = [&](const PrefillPart& part, int unit, int stage) {
    const uint32_t barrier = full_of((unit - part.begin) % kSides, stage);
    device::barrier_expect(barrier, Stage::kX + Stage::kWeights);
    tensor_copy(base + stage * Stage::kBytes + Stage::kX, weight_map, unit * (Format::kBytes / kWeightElement),
                part.area / p.column_areas * kPrefillTiles + rank * kPairTiles, barrier);
  };
  prefetch_map(x_map);
  // weights are read-only: they may be read before the kernel in front has ended.
  PrefillPart part;
  PrefillWalk walk(p.division, static_cast<int>(blockIdx.x) / kMostBlocks);
  bool more = walk.next(p.division, part);
  int early = 0;
  while (early < kStages && part.begin + early < part.end) {
    expect_weights(part, part.begin + early, early);
    early++;
  }
  device::wait_for_previous_kernel();
  RingPlace<kStages> at;
  while (more) {
    const int token = part.area % p.column_areas * kColumns;
    for (int unit = part.begin; unit < part.end; unit++) {
      if (early > 0) {
        early--;
      } else {
        device::barrier_wait(empty + at.stage * 8, at.phase ^ 1);
        expect_weights(part, unit, at.stage);
      }
      tensor_copy_to_cluster(base + at.stage * Stage::kBytes + rank * Stage::kBox, x_map,
                             unit * kUnitInputs + rank * kBoxInputs, token,
                             full_of((unit - part.begin) % kSides, at.stage), (1 << kMostBlocks) - 1);
      at.advance();
    }
    for (int reader = 0; reader < kSides; reader++) {
      // Full when the stage is free in both blocks: who frees it again then does so for its next use in both.
      device::barrier_wait(empty + at.stage * 8, at.phase ^ 1);
      const uint32_t barrier = full_of(1 - reader, at.stage);
      device::barrier_expect(barrier, 1);
      cluster_barrier_complete(device::cluster_address(barrier, static_cast<uint32_t>(1 - rank)), 1);
      at.advance();
    }
    more = walk.next(p.division, part);
  }
  // The block stays until the other one has freed all stages of both.
  for (int i = 0; i < kStages; i++) {
    device::barrier_wait(empty + at.stage * 8, at.phase ^ 1);
    at.advance();
  }
}

__device__ __forceinline__ void store_shared_16(uint32_t address, float v0, float v1, float v2, float v3) {
  asm volatile("st.shared.v4.f32 [%0], {%1, %2, %3, %4};" ::"r"(address), "f"(v0), "f"(v1), "f"(v2), "f"(v3)
               : "memory");
}

// Frees a stage in both blocks of the cluster. By whole warps.
__device__ __forceinline__ void free_stage(uint32_t empty, uint32_t other_empty, int lane, bool frees) {
  device::barrier_arrive_if(empty, frees);
  cluster_barrier_arrive_if(other_empty, frees && lane == 0);
}

// Sums of a tile's outputs and some columns, of which the two sides each have a part of k: leaves a side those of half of
// the columns. `mine`, `theirs`: shared memory of [fragment][thread of a side] from which this side reads and the other.
template <int kSums>
__device__ __forceinline__ void exchange_sums(uint32_t mine, uint32_t theirs, int side, int pair,
                                              const float (&sum)[kSums], float (&kept)[kSums / 2]) {
  constexpr int kHalf = kSums / 2;
  constexpr int kFragmentBytes = kPairTiles * device::kWarpSize * 16;
#pragma unroll
  for (int i = 0; i < kHalf; i += 4) {
    const auto other = [&](int e) { return side == 0 ? sum[kHalf + i + e] : sum[i + e]; };
    store_shared_16(theirs + i / 4 * kFragmentBytes, other(0), other(1), other(2), other(3));
  }
  fence_async_shared();
  asm volatile("bar.sync %0, %1;" ::"r"(2 + pair), "n"(kSides * device::kWarpSize) : "memory");
#pragma unroll
  for (int i = 0; i < kHalf; i += 4) {
    const uint4 v = load_shared_16(mine + i / 4 * kFragmentBytes);
    const uint32_t words[4] = {v.x, v.y, v.z, v.w};
#pragma unroll
    for (int e = 0; e < 4; e++) {
      kept[i + e] = (side == 0 ? sum[i + e] : sum[kHalf + i + e]) + __uint_as_float(words[e]);
    }
  }
}

#endif

// Products of more tokens than kInt4DecodeRows, where that is the faster way (prefill_shape.cc).
//   grid     kMostBlocks * division.clusters, up to one block a multiprocessor; clusters of kMostBlocks; 640 threads: four
//            groups of four warps compute, one warp requests; 96 registers at launch, redistributed; one CTA a multiprocessor
//   shared   PrefillStage::kSharedBytes: up to six stages of weights and x
//   device   9.0a (wgmma, tensor copies); other devices have kernels/int4/prefill/int4_warp_prefill.h
//   waits    for the kernel in front, with weights already requested; the blocks of a cluster for each other's stages; of
//            the clusters of an area the last to arrive joins the sums, nobody waits for another
//   floor    as prefill.cuh
template <class T, class Format, int kColumns>
__global__ void __launch_bounds__(kPrefillThreads, 1)
    prefill_pairs(const __grid_constant__ PrefillParams p, const __grid_constant__ CUtensorMap weight_map,
                  const __grid_constant__ CUtensorMap x_map) {
#if defined(__CUDA_ARCH_FEAT_SM90_ALL)
  using Stage = PrefillStage<Format, kColumns, kPairTiles>;
  constexpr int kStages = Stage::kStages;
  constexpr int kAtOnce = kColumns <= 96 ? 2 : 1;  // sub-blocks whose steps are in flight while others are decoded
  extern __shared__ unsigned char shared_bytes[];
  __shared__ __align__(8)
      uint64_t barriers[(kSides + 1) * kMostStages];  // its presence tells that the kernel was compiled
  __shared__ int arrived[2];
  const uint32_t unaligned = device::shared_address(shared_bytes);
  uint32_t base = (unaligned + kBoxAlignment - 1) / kBoxAlignment * kBoxAlignment;
  uint32_t full = device::shared_address(barriers);
  const int warp = threadIdx.x / device::kWarpSize;
  const int lane = threadIdx.x % device::kWarpSize;
  asm volatile("" : "+r"(base), "+r"(full));  // kept rather than found again for every unit
  const uint32_t empty = full + kSides * kMostStages * 8;
  const int rank = static_cast<int>(device::cluster_rank());
  if (threadIdx.x == 0) {
    for (int i = 0; i < kStages; i++) {
      for (int side = 0; side < kSides; side++) device::barrier_init(full + (side * kMostStages + i) * 8, 1);
      device::barrier_init(empty + i * 8, kPairTiles * (device::kWarpSize + kMostBlocks - 1));
    }
    device::fence_barrier_init();
  }
  __syncthreads();
  device::cluster_arrive_relaxed();
  device::cluster_wait();
  device::allow_next_kernel();

  if (warp >= kPrefillTiles) {
    device::give_registers<kPrefillFillingRegisters>();
    if (warp == kPrefillTiles && lane == 0)
      request_pairs<Format, kColumns>(p, &weight_map, &x_map, base, full, empty, rank);
  } else {
    device::take_registers<kPrefillComputingRegisters>();
    device::wait_for_previous_kernel();  // for its readers of y, and for those of the sums
    PrefillWalk walk(p.division, static_cast<int>(blockIdx.x) / kMostBlocks);
    PrefillPart part;
    int begin = 0;  // the part's first stage
    const int side = warp / kPairTiles;
    const int block_tile = warp % kPairTiles;
    SideStages stages(full + side * kMostStages * 8);
    const uint32_t other_empty = device::cluster_address(empty, static_cast<uint32_t>(1 - rank));
    const uint32_t tile_at = Stage::kX + block_tile * Format::kBytes;
    uint32_t nibbles_at = tile_at + lane * 16;
    uint32_t scales_at = tile_at + kNibbleBytes + lane / 4 * 4;
    const uint32_t zeros_at = tile_at + kNibbleBytes + scale_bytes(Format::kScaleBlock) + lane / 4 * 2;
    asm volatile("" : "+r"(nibbles_at), "+r"(scales_at));
    float sum[kColumns / 2];
    while (walk.next(p.division, part)) {
      const int units = part.end - part.begin;
      int stage_before = 0;
#pragma unroll
      for (int i = 0; i < kColumns / 2; i++) sum[i] = 0;  // a side may have no unit of a part
      int stage = (begin + side) % kStages;
      for (int unit = side; unit < units; unit += kSides) {
        const bool first = unit == side;
        stages.wait(stage);
        const uint32_t x = base + stage * Stage::kBytes;
        const UnitWords<Format> words(x + nibbles_at, x + scales_at, x + zeros_at);
        const uint64_t operand = device::swizzled_operand(__shfl_sync(0xffffffffU, x, 0));
#pragma unroll
        for (int j = 0; j < kUnitInputs / kSubBlock; j += kAtOnce) {
          uint32_t a[2 * kAtOnce][4];
#pragma unroll
          for (int d = 0; d < kAtOnce; d++) decode_scaled<T>(words, j + d, a[2 * d], a[2 * d + 1]);
          device::warpgroup_fence();
#pragma unroll
          for (int s = 0; s < 2 * kAtOnce; s++) {
            const int step = 2 * j + s;
            const uint64_t b = device::operand_behind(operand, step / 4 * Stage::kBox + step % 4 * 32);
            device::multiply_async<T>(sum, a[s], b, true);
          }
          device::warpgroup_commit();
          device::warpgroup_wait<1>();
          // The steps of the unit before have ended: its stage may be filled again.
          if (j == 0) free_stage(empty + stage_before * 8, other_empty + stage_before * 8, lane, !first);
        }
        stage_before = stage;
        stage += stage + kSides < kStages ? kSides : kSides - kStages;
      }
      device::warpgroup_wait<0>();
      device::fence_sums(sum);
      free_stage(empty + stage_before * 8, other_empty + stage_before * 8, lane, side < units);
      float kept[kColumns / 4];
      const int mine = (begin + units + side) % kStages;
      const int theirs = (begin + units + 1 - side) % kStages;
      begin = (begin + units + kSides) % kStages;
      const uint32_t exchange_at = base + (threadIdx.x % (kPairTiles * device::kWarpSize)) * 16;
      stages.wait(theirs);
      exchange_sums(exchange_at + mine * Stage::kBytes, exchange_at + theirs * Stage::kBytes, side, block_tile, sum,
                    kept);
      fence_async_shared();
      free_stage(empty + mine * 8, other_empty + mine * 8, lane, true);
      if (units < p.division.units && !join_parts<kMostBlocks>(p, part.area, arrived, kept)) continue;
      const int tile = part.area / p.column_areas * kPrefillTiles + rank * kPairTiles + block_tile;
      const int first_token = part.area % p.column_areas * kColumns + side * (kColumns / 2);
      if (tile < p.tiles) store_tile<T>(p.out, p.wide, p.m, tile, first_token, kept, lane);
    }
  }
#endif
}

// Each element type is compiled in a file of its own.
template <class T>
PrefillVariant prefill_pairs_variant(int32_t columns, int32_t scale_block, bool asymmetric);

}  // namespace lorikeet::kernels::int4
