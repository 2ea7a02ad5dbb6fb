// How weights come into the shared memory of a warp of the int4 product that keeps x. Included by .cu files only.
#pragma once

#include "kernels/async_copy.cuh"
#include "kernels/device_math.cuh"

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

}  // namespace lorikeet::kernels::int4
