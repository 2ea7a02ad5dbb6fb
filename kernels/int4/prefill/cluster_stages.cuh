// Stages of shared memory that the blocks of a cluster fill for each other. Included by .cu files only.
#pragma once

#include <cuda.h>

#include <cstdint>

namespace lorikeet::kernels::int4 {

#if __CUDA_ARCH__ >= 900

// To the same place in the blocks `ranks` (a bit each) of the cluster, and counted on the barrier of each.
__device__ __forceinline__ void tensor_copy_to_cluster(uint32_t to, const CUtensorMap* map, int column, int row,
                                                       uint32_t barrier, int ranks) {
  asm volatile(
      "cp.async.bulk.tensor.2d.shared::cluster.global.mbarrier::complete_tx::bytes.multicast::cluster [%0], "
      "[%1, {%2, %3}], [%4], %5;" ::"r"(to),
      "l"(map), "r"(column), "r"(row), "r"(barrier), "h"(static_cast<uint16_t>(ranks))
      : "memory");
}

// On a barrier of another block of the cluster. Frees what copies will fill: to order other writes for that block would
// take a fence, which costs hundreds of nanoseconds.
__device__ __forceinline__ void cluster_barrier_arrive_if(uint32_t barrier, bool arrives) {
  asm volatile(
      "{\n.reg .pred arrives;\nsetp.ne.b32 arrives, %1, 0;\n"
      "@arrives mbarrier.arrive.shared::cluster.b64 _, [%0];\n}\n" ::"r"(barrier),
      "r"(static_cast<int>(arrives))
      : "memory");
}
// As if `bytes` had been copied.
__device__ __forceinline__ void cluster_barrier_complete(uint32_t barrier, uint32_t bytes) {
  asm volatile("mbarrier.complete_tx.relaxed.cluster.shared::cluster.b64 [%0], %1;" ::"r"(barrier), "r"(bytes)
               : "memory");
}

// Orders what the thread reads and writes in shared memory before copies into it that follow.
__device__ __forceinline__ void fence_async_shared() {
  asm volatile("fence.proxy.async.shared::cta;" ::: "memory");
}

#endif

}  // namespace lorikeet::kernels::int4
