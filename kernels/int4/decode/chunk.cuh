// How weights come into the shared memory of a warp of the int4 product that keeps x. Included by .cu files only.
#pragma once

#include "kernels/base/rounding.h"
#include "kernels/cuda/async_copy.cuh"
#include "kernels/cuda/device_math.cuh"
#include "kernels/int4/base/layout.h"

namespace lorikeet::kernels::int4 {

#if __CUDA_ARCH__ >= 900
inline constexpr int kStageArrivals = 1;
#else
inline constexpr int kStageArrivals = device::kWarpSize;
#endif

// By all lanes of a warp: neighbouring bytes into its ring, counted on the stage's barrier.
__device__ __forceinline__ void request_chunk(uint32_t stage, const uint8_t* from, uint32_t bytes, uint32_t full,
                                              uint64_t policy, int lane) {
#if __CUDA_ARCH__ >= 900
  if (lane == 0) {
    device::barrier_expect(full, bytes);
    device::bulk_copy(stage, from, bytes, full, policy);
  }
#else
  for (uint32_t byte = lane * 16; byte < bytes; byte += device::kWarpSize * 16) {
    device::copy_async_16(stage + byte, from + byte, true);
  }
  device::barrier_arrive_with_copies(full);
#endif
}

// Units are not whole lines of the L2, and copies that begin or end inside of a line take up to 10 % longer: a chunk of
// units comes with the rest of its first and last line. Its units begin as many bytes behind the beginning of their
// stage as they do behind the beginning of a line.
#if __CUDA_ARCH__ >= 900
inline constexpr int kCopyLine = kL2Line;
#else
inline constexpr int kCopyLine = 1;
#endif

__device__ __forceinline__ int in_line(const uint8_t* address) {
  return static_cast<int>(reinterpret_cast<uintptr_t>(address)) & (kCopyLine - 1);
}

// The stage for a chunk of so many bytes, a multiple of 16.
constexpr int chunk_stage_bytes(int bytes) {
  return round_up(bytes + kL2Line - 16, kL2Line);
}

__device__ __forceinline__ void request_lines(uint32_t stage, const uint8_t* from, int bytes, uint32_t full,
                                              uint64_t policy, int lane) {
  const int before = in_line(from);
  request_chunk(stage, from - before, (before + bytes + kCopyLine - 1) & -kCopyLine, full, policy, lane);
}

}  // namespace lorikeet::kernels::int4
