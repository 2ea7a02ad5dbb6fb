#include "kernels/base/cuda_check.h"
#include "kernels/cuda/device_math.cuh"
#include "kernels/cuda/element_dispatch.cuh"
#include "kernels/cuda/overlap_launch.cuh"
#include "kernels/layer/silu_mul_cuda.h"

namespace lorikeet::kernels {
namespace {

constexpr int kThreads = 256;
constexpr int kVector = 8;  // elements of one 16-byte load

__device__ __forceinline__ float silu(float x) {
  return x / (1.0F + __expf(-x));
}

template <class T>
__device__ __forceinline__ uint32_t silu_mul_pair(uint32_t gate, uint32_t up) {
  const float2 g = device::unpack<T>(gate);
  const float2 u = device::unpack<T>(up);
  return device::pack<T>(silu(g.x) * u.x, silu(g.y) * u.y);
}

// One thread per 16 bytes of the output; only where the product in front does not do this itself.
//   grid     tokens * width / 8 / 256, 256 threads, 29 registers, no shared memory
//   waits    for the kernel in front
template <class T>
__global__ void __launch_bounds__(kThreads) silu_mul(SiluMulArgs args) {
  device::allow_next_kernel();
  device::wait_for_previous_kernel();
  const int vectors = args.width / kVector;
  const int64_t total = static_cast<int64_t>(args.tokens) * vectors;
  const int64_t i = static_cast<int64_t>(blockIdx.x) * kThreads + threadIdx.x;
  if (i >= total) return;
  const int64_t token = i / vectors;
  const int64_t column = i % vectors * kVector;
  const uint4 gate = *reinterpret_cast<const uint4*>(static_cast<const T*>(args.gate) + token * args.stride + column);
  const uint4 up = *reinterpret_cast<const uint4*>(static_cast<const T*>(args.up) + token * args.stride + column);
  *reinterpret_cast<uint4*>(static_cast<T*>(args.out) + token * args.width + column) =
      make_uint4(silu_mul_pair<T>(gate.x, up.x), silu_mul_pair<T>(gate.y, up.y), silu_mul_pair<T>(gate.z, up.z),
                 silu_mul_pair<T>(gate.w, up.w));
}

}  // namespace

void silu_mul_cuda(const SiluMulArgs& args, const Stream& stream) {
  CHECK_EQ(args.width % kVector, 0);
  CHECK_EQ(args.stride % kVector, 0);
  const int64_t vectors = static_cast<int64_t>(args.tokens) * (args.width / kVector);
  if (vectors == 0) return;
  const auto blocks = static_cast<unsigned>((vectors + kThreads - 1) / kThreads);
  with_activation_type(args.dtype, [&](auto element) {
    using T = typename decltype(element)::type;
    device::launch_overlapped(silu_mul<T>, blocks, kThreads, 0, stream.handle(), args);
  });
}

}  // namespace lorikeet::kernels
