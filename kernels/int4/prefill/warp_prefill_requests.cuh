// What the kernel of kernels/int4/prefill/warp_prefill.cuh asks for, step by step. Included by .cu files only.
#pragma once

#include "kernels/cuda/device_math.cuh"
#include "kernels/int4/base/layout.h"
#include "kernels/int4/base/output.cuh"
#include "kernels/int4/prefill/warp_prefill_walk.h"

namespace lorikeet::kernels::int4 {

struct WarpPrefillParams {
  const uint8_t* weight;
  const void* x;
  int64_t x_stride;
  OutputParams out;
  int32_t m, k, tiles, units;
  int32_t area_steps, column_areas;  // steps of an area; areas of the same tiles
  int64_t steps;                     // of all areas
  float4* sums;                      // [2 * blocks] places of area_sum_bytes, as [fragment][thread]
  int* arrived;                      // [blocks]
};

// A step of an area.
struct WalkedStep {
  int first_tile, first_token, step;

  __device__ __forceinline__ WalkedStep(const WarpPrefillParams& p, int64_t of_all, int columns) {
    const int area = static_cast<int>(of_all / p.area_steps);
    step = static_cast<int>(of_all % p.area_steps);
    first_tile = area / p.column_areas * kAreaTiles;
    first_token = area % p.column_areas * columns;
  }
  __device__ __forceinline__ void begin_next_area(const WarpPrefillParams& p, int columns) {
    step = 0;
    first_token += columns;
    if (first_token < p.column_areas * columns) return;
    first_token = 0;
    first_tile += kAreaTiles;
  }
};

// What a thread asks for, step by step: each warp brings a tile, each eight threads a row of x. Behind the last tile the
// last is repeated, behind the last token the last's x; their results are not used. Nothing here branches, so that the
// instructions lie among the matrix steps: behind the last step the copies are of no bytes.
template <class Format, int kColumns>
struct StepRequests {
  static constexpr int kTileBytes = step_tile_bytes(Format::kScaleBlock, Format::kAsymmetric);
  static constexpr int kRowPieces = kStepRowBytes / 16;
  static constexpr int kRowsAtOnce = kWarpPrefillThreads / kRowPieces;
  static constexpr int kRounds = (kColumns + kRowsAtOnce - 1) / kRowsAtOnce;

  WalkedStep at;
  int left;                    // steps to ask for
  const uint8_t* unit;         // of the warp's tile, this lane's 16 bytes
  const uint16_t* x[kRounds];  // this thread's pieces of its rows

  __device__ __forceinline__ StepRequests(const WarpPrefillParams& p, int64_t begin, int count)
      : at(p, begin, kColumns), left(count) {
    begin_area(p);
  }

  __device__ __forceinline__ void begin_area(const WarpPrefillParams& p) {
    const int tile = min(at.first_tile + static_cast<int>(threadIdx.x) / device::kWarpSize, p.tiles - 1);
    unit = p.weight + (static_cast<int64_t>(tile) * p.units + at.step / 2) * Format::kBytes +
           threadIdx.x % device::kWarpSize * 16;
#pragma unroll
    for (int i = 0; i < kRounds; i++) {
      const int token = at.first_token + static_cast<int>(threadIdx.x) / kRowPieces + i * kRowsAtOnce;
      x[i] = static_cast<const uint16_t*>(p.x) + min(token, p.m - 1) * p.x_stride + at.step * kStepInputs +
             threadIdx.x % kRowPieces * 8;
    }
  }

  __device__ __forceinline__ void weights(uint32_t to) const {
    constexpr int kScaleBytes = step_scale_bytes(Format::kScaleBlock);
    constexpr int kZeroBytes = step_zero_bytes(Format::kScaleBlock, Format::kAsymmetric);
    constexpr bool kOfUnit = step_scale_blocks(Format::kScaleBlock) == 1;  // the scales are those of both steps
    const int lane = threadIdx.x % device::kWarpSize;
    const int half = at.step % 2;
    to += threadIdx.x / device::kWarpSize * kTileBytes + lane * 16;
    device::copy_async_16(to, unit + half * kStepNibbleBytes, left > 0);
    int from = kNibbleBytes;
    if (!kOfUnit) from += lane < kScaleBytes / 16 ? half * kScaleBytes : kScaleBytes + half * kZeroBytes;
    const bool mine = lane < (kScaleBytes + kZeroBytes) / 16;
    copy_async_16_where(mine, to + kStepNibbleBytes, unit + from, left > 0);
  }

  // A row's 16 bytes c lie at c ^ (row % 8), so that the rows of a matrix lie in other banks.
  __device__ __forceinline__ void inputs(const WarpPrefillParams& p, uint32_t to) const {
    const int row = threadIdx.x / kRowPieces;
    const int piece = threadIdx.x % kRowPieces;
    const bool valid = left > 0 && at.step * kStepInputs + piece * 8 < p.k;
    to += row * kStepRowBytes + (piece ^ row % 8) * 16;
#pragma unroll
    for (int i = 0; i < kRounds; i++) {
      const bool mine = (i + 1) * kRowsAtOnce <= kColumns || row < kColumns - i * kRowsAtOnce;
      copy_async_16_where(mine, to + i * kRowsAtOnce * kStepRowBytes, x[i], valid);
    }
  }

  // To the next step of the area; whether there is none.
  __device__ __forceinline__ bool advance(const WarpPrefillParams& p) {
    left--;
    at.step++;
    unit += at.step % 2 == 0 ? Format::kBytes : 0;
#pragma unroll
    for (int i = 0; i < kRounds; i++) x[i] += kStepInputs;
    return at.step == p.area_steps;
  }
  __device__ __forceinline__ void begin_next_area(const WarpPrefillParams& p) {
    at.begin_next_area(p, kColumns);
    begin_area(p);
  }

 private:
  // copy_async_16 by the threads for which `mine` holds, without a branch.
  static __device__ __forceinline__ void copy_async_16_where(bool mine, uint32_t to, const void* from, bool valid) {
    asm volatile(
        "{\n"
        ".reg .pred mine;\n"
        "setp.ne.s32 mine, %3, 0;\n"
        "@mine cp.async.cg.shared.global [%0], [%1], 16, %2;\n"
        "}\n" ::"r"(to),
        "l"(from), "r"(valid ? 16 : 0), "r"(static_cast<int>(mine))
        : "memory");
  }
};

}  // namespace lorikeet::kernels::int4
