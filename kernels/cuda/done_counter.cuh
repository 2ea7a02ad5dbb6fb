// How a kernel that was allowed to begin early learns that an earlier one, not the one just before it, has written what
// it reads. Included by .cu files only.
#pragma once

#include <cuda_runtime.h>

#include <cstdint>

#include "kernels/cuda/poll_bound.cuh"

namespace lorikeet::kernels::device {

// Adds to a counter in device memory and returns what it was. What the block wrote before its last barrier is seen by
// those who add later, and what they wrote by this block's threads behind its next barrier.
__device__ __forceinline__ int add_and_see(int* counter, int value) {
  int before;
  asm volatile("atom.acq_rel.gpu.global.add.s32 %0, [%1], %2;" : "=r"(before) : "l"(counter), "r"(value) : "memory");
  return before;
}

// Called by all threads of a block when they have written everything. Null: nobody asks.
__device__ __forceinline__ void signal_done(uint32_t* done) {
  if (done == nullptr) return;
  __syncthreads();
  if (threadIdx.x == 0) {
    asm volatile("red.release.gpu.global.add.u32 [%0], %1;" ::"l"(done), "r"(1) : "memory");
  }
}

// Called by all threads of a block: waits until `blocks` blocks have signalled. They must all have begun.
template <bool kForgetsL1 = true>
__device__ __forceinline__ void wait_until_done(const uint32_t* done, uint32_t blocks) {
  if (threadIdx.x == 0) {
    uint32_t seen;
    PollBound bound;
    do {
      bound.count();
      asm volatile("ld.relaxed.gpu.global.u32 %0, [%1];" : "=r"(seen) : "l"(done) : "memory");
    } while (seen < blocks);
    // Once, and not with every look: to acquire is to forget the L1, which others of the multiprocessor use.
    if (kForgetsL1) asm volatile("fence.acq_rel.gpu;" ::: "memory");
  }
  __syncthreads();
}

// The same where all that they wrote is then read by loads that go to the L2 (__ldcg), where it lies: what was counted
// came there before. Without the fence eight rows with an adapter take 3.92 ms instead of 3.98.
__device__ __forceinline__ void wait_until_counted(const uint32_t* done, uint32_t blocks) {
  wait_until_done<false>(done, blocks);
}

}  // namespace lorikeet::kernels::device
