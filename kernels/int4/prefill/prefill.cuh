// The kernel of kernels/int4/prefill/int4_prefill.h in which a block makes an area. Weights are operand A of the
// warpgroups' matrix steps, scaled in registers: (q - z) * scale, rounded to the type of the activations. Tokens are the
// columns. Both come by tensor copies: one warp requests, part after part of what the block makes, what four groups of four
// warps consume. Included by .cu files only.
#pragma once

#include "kernels/cuda/async_copy.cuh"
#include "kernels/cuda/device_math.cuh"
#include "kernels/cuda/wgmma.cuh"
#include "kernels/int4/base/fragment.cuh"
#include "kernels/int4/base/layout.h"
#include "kernels/int4/base/output.cuh"
#include "kernels/int4/prefill/prefill_join.cuh"
#include "kernels/int4/prefill/prefill_stages.cuh"
#include "kernels/int4/prefill/prefill_store.cuh"
#include "kernels/int4/prefill/prefill_walk.h"

namespace lorikeet::kernels::int4 {

#if defined(__CUDA_ARCH_FEAT_SM90_ALL)

// By one thread: asks for all that the block consumes.
template <class Format, int kColumns>
__device__ __forceinline__ void request(const PrefillParams& p, const CUtensorMap* weight_map, const CUtensorMap* x_map,
                                        uint32_t base, uint32_t full, uint32_t empty) {
  using Stage = PrefillStage<Format, kColumns, kPrefillTiles>;
  constexpr int kStages = Stage::kStages;
  const auto expect_weights = [&](const PrefillPart& part, int unit, int stage) {
    device::barrier_expect(full + stage * 8, Stage::kX + Stage::kWeights);
    tensor_copy(base + stage * Stage::kBytes + Stage::kX, weight_map, unit * (Format::kBytes / kWeightElement),
                part.area / p.column_areas * kPrefillTiles, full + stage * 8);
  };
  const auto inputs = [&](const PrefillPart& part, int unit, int stage) {
    const uint32_t x = base + stage * Stage::kBytes;
    const int token = part.area % p.column_areas * kColumns;
    tensor_copy(x, x_map, unit * kUnitInputs, token, full + stage * 8);
    tensor_copy(x + Stage::kBox, x_map, unit * kUnitInputs + kBoxInputs, token, full + stage * 8);
  };
  prefetch_map(x_map);
  // weights are read-only: they may be read before the kernel in front has ended.
  int early = 0;
  PrefillPart part;
  PrefillWalk walk(p.division, static_cast<int>(blockIdx.x));
  while (early < kStages && walk.next(p.division, part)) {
    for (int unit = part.begin; unit < part.end && early < kStages; unit++) expect_weights(part, unit, early++);
  }
  device::wait_for_previous_kernel();
  walk = PrefillWalk(p.division, static_cast<int>(blockIdx.x));
  RingPlace<kStages> at;
  int asked = 0;
  while (walk.next(p.division, part)) {
    for (int unit = part.begin; unit < part.end; unit++) {
      if (asked < early) {
        asked++;
      } else {
        device::barrier_wait(empty + at.stage * 8, at.phase ^ 1);
        expect_weights(part, unit, at.stage);
      }
      inputs(part, unit, at.stage);
      at.advance();
    }
  }
}

#endif

// Products of more tokens than kInt4DecodeRows.
//   grid     division.clusters, up to one a multiprocessor; 640 threads: four groups of four warps compute, one warp
//            requests; 96 registers at launch, redistributed; one CTA a multiprocessor
//   shared   PrefillStage::kSharedBytes: up to six stages of weights and x
//   device   9.0a (wgmma, tensor copies); other devices have kernels/int4/prefill/int4_warp_prefill.h
//   waits    for the kernel in front, with weights already requested; of the blocks of an area the last to arrive joins
//            the sums, nobody waits for another
//   floor    with prefill_pairs.cuh 0.83 to 1.86 times as fast as cuBLASLt fp16 from 80 to 384 tokens, 0.74 to 1.04 above
//            (bench/RESULTS.md)
template <class T, class Format, int kColumns>
__global__ void __launch_bounds__(kPrefillThreads, 1)
    prefill(const __grid_constant__ PrefillParams p, const __grid_constant__ CUtensorMap weight_map,
            const __grid_constant__ CUtensorMap x_map) {
#if defined(__CUDA_ARCH_FEAT_SM90_ALL)
  using Stage = PrefillStage<Format, kColumns, kPrefillTiles>;
  constexpr int kStages = Stage::kStages;
  constexpr int kAtOnce = kColumns <= 96 ? 2 : 1;  // sub-blocks whose steps are in flight while others are decoded
  extern __shared__ unsigned char shared_bytes[];
  __shared__ __align__(8) uint64_t barriers[2 * kMostStages];  // its presence tells that the kernel was compiled
  __shared__ int arrived[2];
  const uint32_t unaligned = device::shared_address(shared_bytes);
  uint32_t base = (unaligned + kBoxAlignment - 1) / kBoxAlignment * kBoxAlignment;
  uint32_t full = device::shared_address(barriers);
  const int warp = threadIdx.x / device::kWarpSize;
  const int lane = threadIdx.x % device::kWarpSize;
  asm volatile("" : "+r"(base), "+r"(full));  // kept rather than found again for every unit
  const uint32_t empty = full + kMostStages * 8;
  if (threadIdx.x == 0) {
    for (int i = 0; i < kStages; i++) {
      device::barrier_init(full + i * 8, 1);
      device::barrier_init(empty + i * 8, kConsumers);
    }
    device::fence_barrier_init();
  }
  __syncthreads();
  device::allow_next_kernel();

  if (warp >= kPrefillTiles) {
    device::give_registers<kPrefillFillingRegisters>();
    if (warp == kPrefillTiles && lane == 0) request<Format, kColumns>(p, &weight_map, &x_map, base, full, empty);
  } else {
    device::take_registers<kPrefillComputingRegisters>();
    device::wait_for_previous_kernel();  // for its readers of y, and for those of the sums
    PrefillWalk walk(p.division, static_cast<int>(blockIdx.x));
    PrefillPart part;
    RingPlace<kStages> at;
    const uint32_t tile_at = Stage::kX + warp * Format::kBytes;
    uint32_t nibbles_at = tile_at + lane * 16;
    uint32_t scales_at = tile_at + kNibbleBytes + lane / 4 * 4;
    const uint32_t zeros_at = tile_at + kNibbleBytes + scale_bytes(Format::kScaleBlock) + lane / 4 * 2;
    asm volatile("" : "+r"(nibbles_at), "+r"(scales_at));
    float sum[kColumns / 2];
    while (walk.next(p.division, part)) {
      int stage_before = 0;
      for (int unit = part.begin; unit < part.end; unit++) {
        const bool first = unit == part.begin;
        device::barrier_wait(full + at.stage * 8, at.phase);
        const uint32_t x = base + at.stage * Stage::kBytes;
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
            device::multiply_async<T>(sum, a[s], b, step > 0 || !first);
          }
          device::warpgroup_commit();
          device::warpgroup_wait<1>();
          // The steps of the unit before have ended: its stage may be filled again.
          if (j == 0) device::barrier_arrive_if(empty + stage_before * 8, !first);
        }
        stage_before = at.stage;
        at.advance();
      }
      device::warpgroup_wait<0>();
      device::fence_sums(sum);
      device::barrier_arrive(empty + stage_before * 8);
      if (part.end - part.begin < p.division.units && !join_parts<1>(p, part.area, arrived, sum)) continue;
      const int tile = part.area / p.column_areas * kPrefillTiles + warp;
      const int first_token = part.area % p.column_areas * kColumns;
      if (tile < p.tiles) store_tile<T>(p.out, p.wide, p.m, tile, first_token, sum, lane);
    }
  }
#endif
}

// Each element type is compiled in a file of its own.
template <class T>
PrefillVariant prefill_variant(int32_t columns, int32_t scale_block, bool asymmetric);

}  // namespace lorikeet::kernels::int4
