#include "kernels/cuda/pinned_copy_cuda.h"

#include <glog/logging.h>

#include "kernels/base/cuda_check.h"
#include "kernels/base/rounding.h"

namespace lorikeet::kernels {
namespace {

constexpr int kThreads = 256;
constexpr uint64_t kVectorBytes = sizeof(uint4);
constexpr uint64_t kMostByKernel = 128 << 10;  // what all multiprocessors have on their way at once, without a loop

// Block b: bytes [4,096 b, 4,096 (b + 1)), a vector of 16 for each thread, all on their way at once.
//   grid     (bytes / 4,096), 256 threads, 18 registers; any device
//   waits    for nothing
__global__ void __launch_bounds__(kThreads)
    copy_from_host(unsigned char* to, const unsigned char* from, uint64_t bytes) {
  const uint64_t at = (static_cast<uint64_t>(blockIdx.x) * kThreads + threadIdx.x) * kVectorBytes;
  if (at + kVectorBytes <= bytes) {
    // As the host has it now, whatever a cache may hold of an earlier step.
    *reinterpret_cast<uint4*>(to + at) = __ldcv(reinterpret_cast<const uint4*>(from + at));
  } else {
    for (uint64_t i = at; i < bytes; i++) to[i] = __ldcv(from + i);
  }
  // A kernel that is launched to overlap the one behind this may look at what is here before it waits for anything.
  __threadfence();
}

}  // namespace

void copy_pinned_to_device(void* device, const void* pinned, uint64_t bytes, const Stream& stream) {
  if (bytes == 0) return;
  if (bytes > kMostByKernel) return copy_to_device(device, pinned, bytes, stream);
  CHECK_EQ(reinterpret_cast<uintptr_t>(device) % kVectorBytes, 0u);
  CHECK_EQ(reinterpret_cast<uintptr_t>(pinned) % kVectorBytes, 0u);
  copy_from_host<<<static_cast<unsigned>(divide_up(bytes, kThreads * kVectorBytes)), kThreads, 0, stream.handle()>>>(
      static_cast<unsigned char*>(device), static_cast<const unsigned char*>(pinned), bytes);
  LORIKEET_CHECK_CUDA(cudaGetLastError());
}

}  // namespace lorikeet::kernels
