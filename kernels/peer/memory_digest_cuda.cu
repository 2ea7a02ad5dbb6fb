#include "kernels/peer/memory_digest_cuda.h"

#include <cuda_runtime_api.h>

#include "kernels/base/cuda_check.h"
#include "kernels/base/rounding.h"

namespace lorikeet::kernels {
namespace {

constexpr int kThreads = 256;
constexpr int kWarps = kThreads / 32;
constexpr int kWordsOfThread = 16;  // 32 KiB of a block: 2 to 3 us
constexpr uint64_t kWordsOfBlock = uint64_t{kThreads} * kWordsOfThread;

// Steele et al., "Fast splittable pseudorandom number generators" (2014): the mix of SplitMix64.
__device__ __forceinline__ uint64_t mix(uint64_t x) {
  x = (x ^ (x >> 30)) * 0xbf58476d1ce4e5b9ULL;
  x = (x ^ (x >> 27)) * 0x94d049bb133111ebULL;
  return x ^ (x >> 31);
}

// Grid: a block for each 32 KiB, 256 threads. Registers: few; shared memory: 64 bytes; any device.
// Adds up the words, each mixed with its place, so that the order of the additions does not matter. first: the place of the
// first word. Waits for nothing.
//
// Blocks are short, since a step's kernel that has a block for every multiprocessor waits for those that are not free: a
// few blocks that last hold a step up for as long as they do, all of these for the time that the memory takes.
__global__ void digest_kernel(const uint64_t* words, uint64_t count, uint64_t first, unsigned long long* digest) {
  __shared__ uint64_t of_warps[kWarps];
  const uint64_t begin = blockIdx.x * kWordsOfBlock + threadIdx.x;
  uint64_t values[kWordsOfThread];
#pragma unroll
  for (int i = 0; i < kWordsOfThread; i++) {
    const uint64_t at = begin + static_cast<uint64_t>(i) * kThreads;
    values[i] = at < count ? words[at] : 0;
  }
  uint64_t sum = 0;
#pragma unroll
  for (int i = 0; i < kWordsOfThread; i++) {
    const uint64_t at = begin + static_cast<uint64_t>(i) * kThreads;
    if (at < count) sum += mix(values[i] + (first + at + 1) * 0x9e3779b97f4a7c15ULL);
  }
  for (int lane = 16; lane > 0; lane /= 2) sum += __shfl_xor_sync(0xffffffffU, sum, lane);
  if (threadIdx.x % 32 == 0) of_warps[threadIdx.x / 32] = sum;
  __syncthreads();
  if (threadIdx.x > 0) return;
  for (int warp = 1; warp < kWarps; warp++) sum += of_warps[warp];
  atomicAdd(digest, static_cast<unsigned long long>(sum));
}

void queue_digest(std::span<const DevicePart> parts, uint64_t* sum, const Stream& stream) {
  fill_bytes(sum, 0, sizeof(uint64_t), stream);
  uint64_t first = 0;
  for (const DevicePart& part : parts) {
    const uint64_t words = part.bytes / sizeof(uint64_t);
    if (words == 0) continue;
    const auto blocks = static_cast<unsigned>(divide_up(words, kWordsOfBlock));  // of 64 TiB at the most
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
  queue_digest({&part, 1}, sum->as<uint64_t>(), stream);
  uint64_t digest = 0;
  copy_to_host(&digest, sum->data(), sizeof(digest), stream);
  stream.synchronize();
  return digest;
}

void memory_digest_cuda(std::span<const DevicePart> parts, uint64_t* sum, const Stream& stream) {
  queue_digest(parts, sum, stream);
}

}  // namespace lorikeet::kernels
