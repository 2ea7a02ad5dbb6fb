#include "kernels/base/cuda_check.h"
#include "kernels/cuda/device_math.cuh"
#include "kernels/cuda/element_dispatch.cuh"
#include "kernels/dense/dense_weight_cuda.h"

namespace lorikeet::kernels {
namespace {

constexpr int kThreads = 256;

unsigned blocks_for(int64_t count) {
  return static_cast<unsigned>((count + kThreads - 1) / kThreads);
}

// One thread per element, when weights are loaded: 256 threads, up to 10 registers, no shared memory.
template <class From, class To>
__global__ void __launch_bounds__(kThreads) convert(const From* from, To* to, int64_t count) {
  const int64_t i = static_cast<int64_t>(blockIdx.x) * kThreads + threadIdx.x;
  if (i < count) to[i] = device::from_float<To>(device::to_float(from[i]));
}

template <class To>
void convert_to(const void* from, Dtype from_dtype, void* to, int64_t count, cudaStream_t stream) {
  if (from_dtype == Dtype::f32) {
    convert<<<blocks_for(count), kThreads, 0, stream>>>(static_cast<const float*>(from), static_cast<To*>(to), count);
    return;
  }
  with_activation_type(from_dtype, [&](auto element) {
    using From = typename decltype(element)::type;
    convert<<<blocks_for(count), kThreads, 0, stream>>>(static_cast<const From*>(from), static_cast<To*>(to), count);
  });
}

// splitmix64's finaliser.
__device__ uint64_t mix(uint64_t x) {
  x = (x ^ x >> 30) * 0xbf58476d1ce4e5b9ULL;
  x = (x ^ x >> 27) * 0x94d049bb133111ebULL;
  return x ^ x >> 31;
}

// One thread per element, for benches: 256 threads, 12 registers, no shared memory.
template <class To>
__global__ void __launch_bounds__(kThreads) fill_uniform(To* to, int64_t count, float bound, uint64_t seed) {
  const int64_t i = static_cast<int64_t>(blockIdx.x) * kThreads + threadIdx.x;
  if (i >= count) return;
  const uint64_t bits = mix(mix(seed * 0x9e3779b97f4a7c15ULL + 1) ^ static_cast<uint64_t>(i));
  to[i] = device::from_float<To>(bound * (static_cast<float>(bits >> 40) * 0x1p-23F - 1));
}

}  // namespace

void convert_cuda(const void* from, Dtype from_dtype, void* to, Dtype to_dtype, int64_t count, const Stream& stream) {
  if (count == 0) return;
  with_activation_type(to_dtype, [&](auto element) {
    using To = typename decltype(element)::type;
    convert_to<To>(from, from_dtype, to, count, stream.handle());
  });
  LORIKEET_CHECK_CUDA(cudaGetLastError());
}

void fill_uniform_cuda(void* to, Dtype dtype, int64_t count, float bound, uint64_t seed, const Stream& stream) {
  if (count == 0) return;
  with_activation_type(dtype, [&](auto element) {
    using To = typename decltype(element)::type;
    fill_uniform<<<blocks_for(count), kThreads, 0, stream.handle()>>>(static_cast<To*>(to), count, bound, seed);
  });
  LORIKEET_CHECK_CUDA(cudaGetLastError());
}

}  // namespace lorikeet::kernels
