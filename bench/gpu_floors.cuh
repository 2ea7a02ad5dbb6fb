// What the device's benchmarks share: random data on the device, timing by graph replays, and the floors of memory.
#pragma once

#include <algorithm>
#include <vector>

#include "kernels/async_copy.cuh"
#include "kernels/device.h"

namespace lorikeet::kernels::bench {

inline constexpr int kReplays = 25;
inline constexpr uint64_t kBandwidthBytes = 4ULL << 30;
inline constexpr int kThreads = 256;

template <class T>
T must(Result<T> result) {
  CHECK(result) << result.error().message;
  return std::move(*result);
}

inline DeviceBuffer allocate(uint64_t bytes) {
  return must(DeviceBuffer::allocate(bytes, "the benchmark"));
}

static __global__ void fill_normal_halves(__half* out, int64_t count, uint64_t seed) {
  const int64_t i = static_cast<int64_t>(blockIdx.x) * blockDim.x + threadIdx.x;
  if (i >= count) return;
  uint64_t x = (static_cast<uint64_t>(i) + (seed << 40)) * 0x9e3779b97f4a7c15ULL;
  x ^= x >> 31;
  x *= 0xbf58476d1ce4e5b9ULL;
  x ^= x >> 29;
  // The sum of four uniforms: near enough to normal.
  float sum = -2;
  for (int j = 0; j < 4; j++) sum += static_cast<float>(x >> (16 * j) & 0xffff) / 65536.0F;
  out[i] = __float2half_rn(sum * 1.73F);
}

inline DeviceBuffer random_halves(int64_t count, uint64_t seed, const Stream& stream) {
  DeviceBuffer buffer = allocate(static_cast<uint64_t>(count) * 2);
  fill_normal_halves<<<static_cast<unsigned>((count + kThreads - 1) / kThreads), kThreads, 0, stream.handle()>>>(
      buffer.as<__half>(), count, seed);
  LORIKEET_CHECK_CUDA(cudaGetLastError());
  return buffer;
}

// Reads everything once. On Hopper with bulk copies into shared memory, elsewhere with plain loads.
inline constexpr int kReadSlot = 16 << 10;
inline constexpr int kReadSlots = 12;
static __global__ void __launch_bounds__(kThreads) read_all(const unsigned char* data, uint64_t bytes, uint32_t* sink) {
#if __CUDA_ARCH__ >= 900
  extern __shared__ __align__(128) unsigned char slots[];
  __shared__ __align__(8) uint64_t barriers[kReadSlots];
  if (threadIdx.x != 0) return;
  const uint64_t pieces = bytes / kReadSlot;
  const uint32_t base = device::shared_address(slots);
  const uint32_t barrier = device::shared_address(barriers);
  for (int i = 0; i < kReadSlots; i++) device::barrier_init(barrier + i * 8, 1);
  device::fence_barrier_init();
  const uint64_t policy = device::evict_first_policy();
  auto request = [&](uint64_t i) {
    const uint64_t piece = blockIdx.x + i * gridDim.x;
    if (piece >= pieces) return;
    const int slot = static_cast<int>(i % kReadSlots);
    device::barrier_expect(barrier + slot * 8, kReadSlot);
    device::bulk_copy(base + slot * kReadSlot, data + piece * kReadSlot, kReadSlot, barrier + slot * 8, policy);
  };
  for (int i = 0; i < kReadSlots; i++) request(static_cast<uint64_t>(i));
  for (uint64_t i = 0; blockIdx.x + i * gridDim.x < pieces; i++) {
    device::barrier_wait(barrier + static_cast<int>(i % kReadSlots) * 8, static_cast<uint32_t>(i / kReadSlots & 1));
    request(i + kReadSlots);
  }
  if (slots[0] == 1 && slots[1] == 2 && slots[2] == 3 && slots[3] == 4 && slots[4] == 5) *sink = 1;
#else
  const uint64_t count = bytes / 16;
  const auto* words = reinterpret_cast<const uint4*>(data);
  uint32_t sum = 0;
  for (uint64_t i = blockIdx.x * kThreads + threadIdx.x; i < count; i += static_cast<uint64_t>(gridDim.x) * kThreads) {
    const uint4 w = __ldcs(words + i);
    sum ^= w.x ^ w.y ^ w.z ^ w.w;
  }
  if (sum == 0x12345) *sink = sum;
#endif
}

// Median microseconds of `work`, which is captured once.
template <class F>
double microseconds(const Stream& stream, F&& work) {
  work();  // algorithms are chosen outside the capture
  const Graph graph = must(Graph::capture(stream, work));
  const Event begin = must(Event::make(true));
  const Event end = must(Event::make(true));
  std::vector<double> times;
  for (int i = 0; i < kReplays + 3; i++) {
    begin.record(stream);
    graph.launch(stream);
    end.record(stream);
    end.synchronize();
    if (i >= 3) times.push_back(1e3 * elapsed_ms(begin, end));
  }
  std::sort(times.begin(), times.end());
  return times[times.size() / 2];
}

// Bytes a second that the device moves at best.
struct MemoryFloors {
  double read = 0;  // read-only, with bulk copies on Hopper
  double copy = 0;  // device to device, bytes read and written
};

inline MemoryFloors measure_memory(const Stream& stream) {
  const DeviceProperties properties = device_properties();
  MemoryFloors floors;
  const DeviceBuffer data = allocate(kBandwidthBytes);
  const DeviceBuffer sink = allocate(16);
  const int64_t halves = static_cast<int64_t>(kBandwidthBytes / 2);
  fill_normal_halves<<<static_cast<unsigned>(halves / kThreads), kThreads, 0, stream.handle()>>>(data.as<__half>(),
                                                                                                 halves, 9);
  LORIKEET_CHECK_CUDA(
      cudaFuncSetAttribute(read_all, cudaFuncAttributeMaxDynamicSharedMemorySize, kReadSlot * kReadSlots));
  for (const int per_sm : {1, 4}) {
    const int slots = per_sm == 1 ? kReadSlots : 0;
    if (slots == 0 && properties.capability >= 90) continue;
    const double us = microseconds(stream, [&] {
      device::LaunchShape shape;
      shape.blocks = static_cast<unsigned>(properties.multiprocessors * per_sm);
      shape.threads = kThreads;
      shape.shared_bytes = static_cast<size_t>(slots * kReadSlot);
      device::launch(read_all, shape, stream.handle(), data.as<unsigned char>(), kBandwidthBytes, sink.as<uint32_t>());
    });
    floors.read = std::max(floors.read, static_cast<double>(kBandwidthBytes) / us * 1e6);
  }
  const double us = microseconds(stream, [&] {
    copy_on_device(data.data(), data.as<unsigned char>() + kBandwidthBytes / 2, kBandwidthBytes / 2, stream);
  });
  floors.copy = static_cast<double>(kBandwidthBytes) / us * 1e6;
  return floors;
}

}  // namespace lorikeet::kernels::bench
