#include "kernels/peer/memory_digest_cuda.h"

#include <cuda_runtime_api.h>

#include <algorithm>

#include "kernels/base/cuda_check.h"

namespace lorikeet::kernels {
namespace {

constexpr int kThreads = 256;
constexpr int kBlocksPerMultiprocessor = 8;
constexpr int kBlocksBesideSteps = 32;

// Steele et al., "Fast splittable pseudorandom number generators" (2014): the mix of SplitMix64.
__device__ __forceinline__ uint64_t mix(uint64_t x) {
  x = (x ^ (x >> 30)) * 0xbf58476d1ce4e5b9ULL;
  x = (x ^ (x >> 27)) * 0x94d049bb133111ebULL;
  return x ^ (x >> 31);
}

// Grid: up to 8 blocks a multiprocessor, 32 in all beside steps, 256 threads. Registers: few; shared memory: none; any device.
// Adds up the words, each mixed with its place, so that the order of the additions does not matter: every thread walks
// over its words and adds once. first: the place of the first word. Waits for nothing.
__global__ void digest_kernel(const uint64_t* words, uint64_t count, uint64_t first, unsigned long long* digest) {
  uint64_t sum = 0;
  const uint64_t stride = static_cast<uint64_t>(gridDim.x) * blockDim.x;
  for (uint64_t i = static_cast<uint64_t>(blockIdx.x) * blockDim.x + threadIdx.x; i < count; i += stride) {
    sum += mix(words[i] + (first + i + 1) * 0x9e3779b97f4a7c15ULL);
  }
  for (int lane = 16; lane > 0; lane /= 2) sum += __shfl_xor_sync(0xffffffffU, sum, lane);
  if (threadIdx.x % 32 == 0) atomicAdd(digest, static_cast<unsigned long long>(sum));
}

void queue_digest(std::span<const DevicePart> parts, uint64_t* sum, int most_blocks, const Stream& stream) {
  fill_bytes(sum, 0, sizeof(uint64_t), stream);
  uint64_t first = 0;
  for (const DevicePart& part : parts) {
    const uint64_t words = part.bytes / sizeof(uint64_t);
    if (words == 0) continue;
    const auto blocks = static_cast<int>(std::min<uint64_t>((words + kThreads - 1) / kThreads, most_blocks));
    digest_kernel<<<blocks, kThreads, 0, stream.handle()>>>(static_cast<const uint64_t*>(part.data), words, first,
                                                            reinterpret_cast<unsigned long long*>(sum));
    LORIKEET_CHECK_CUDA(cudaGetLastError());
    first += words;
  }
}

}  // namespace

Result<uint64_t> memory_digest_cuda(const void* data, uint64_t bytes, const Stream& stream) {
  const auto sum = DeviceBuffer::allocate(sizeof(uint64_t), "a digest");
  if (!sum) return tl::unexpected(sum.error());
  const DevicePart part{data, bytes};
  queue_digest({&part, 1}, sum->as<uint64_t>(), kBlocksPerMultiprocessor * device_properties().multiprocessors, stream);
  uint64_t digest = 0;
  copy_to_host(&digest, sum->data(), sizeof(digest), stream);
  stream.synchronize();
  return digest;
}

void memory_digest_cuda(std::span<const DevicePart> parts, uint64_t* sum, const Stream& stream) {
  queue_digest(parts, sum, kBlocksBesideSteps, stream);
}

}  // namespace lorikeet::kernels
