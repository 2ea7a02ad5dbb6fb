// What the device's benchmarks share: random data on the device, timing by graph replays, and the floors of memory.
#pragma once

#include <algorithm>
#include <vector>

#include "kernels/base/device.h"
#include "kernels/cuda/async_copy.cuh"
#include "kernels/cuda/floors_cuda.h"

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

inline Floors measure_memory(const Stream& stream) {
  return must(measure_cuda_memory(kBandwidthBytes, stream));
}

}  // namespace lorikeet::kernels::bench
