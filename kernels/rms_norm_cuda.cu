#include "kernels/cuda_check.h"
#include "kernels/device_math.cuh"
#include "kernels/done_counter.cuh"
#include "kernels/element_dispatch.cuh"
#include "kernels/overlap_launch.cuh"
#include "kernels/rms_norm_cuda.h"

namespace lorikeet::kernels {
namespace {

constexpr int kVector = 4;  // elements of one 16-byte load of floats

// Sum over the block, the same in every thread: lanes first, then warps in order.
template <int kThreads>
__device__ float block_sum(float x) {
  constexpr int kWarps = kThreads / device::kWarpSize;
  __shared__ float of_warp[kWarps];
  x = device::warp_sum(x);
  if (threadIdx.x % device::kWarpSize == 0) of_warp[threadIdx.x / device::kWarpSize] = x;
  __syncthreads();
  float total = 0;
#pragma unroll
  for (int w = 0; w < kWarps; w++) total += of_warp[w];
  return total;
}

// One block per row; the row stays in registers between the two passes.
template <class T, int kThreads, int kVectors>
__global__ void __launch_bounds__(kThreads) add_rms_norm(AddRmsNormArgs args) {
  device::allow_next_kernel();
  float4 weight[kVectors];  // nobody's output
#pragma unroll
  for (int v = 0; v < kVectors; v++) {
    const int column = (v * kThreads + threadIdx.x) * kVector;
    if (column < args.width) weight[v] = __ldg(reinterpret_cast<const float4*>(args.weight + column));
  }
  device::wait_for_previous_kernel();

  const int token = blockIdx.x;
  const size_t row = args.rows == nullptr ? token : args.rows[token];
  float* residual = args.residual + row * args.width;
  float4 x[kVectors];
  float squares = 0;
#pragma unroll
  for (int v = 0; v < kVectors; v++) {
    const int column = (v * kThreads + threadIdx.x) * kVector;
    x[v] = make_float4(0, 0, 0, 0);
    if (column >= args.width) continue;
    x[v] = *reinterpret_cast<const float4*>(residual + column);
    if (args.delta != nullptr) {
      const uint2 packed =
          *reinterpret_cast<const uint2*>(static_cast<const T*>(args.delta) + row * args.width + column);
      const float2 low = device::unpack<T>(packed.x);
      const float2 high = device::unpack<T>(packed.y);
      x[v].x += low.x;
      x[v].y += low.y;
      x[v].z += high.x;
      x[v].w += high.y;
      *reinterpret_cast<float4*>(residual + column) = x[v];
    }
    squares += x[v].x * x[v].x + x[v].y * x[v].y + x[v].z * x[v].z + x[v].w * x[v].w;
  }
  const float factor = rsqrtf(block_sum<kThreads>(squares) / static_cast<float>(args.width) + args.epsilon);
  T* out = static_cast<T*>(args.out) + static_cast<size_t>(token) * args.width;
#pragma unroll
  for (int v = 0; v < kVectors; v++) {
    const int column = (v * kThreads + threadIdx.x) * kVector;
    if (column >= args.width) continue;
    const float4 w = weight[v];
    *reinterpret_cast<uint2*>(out + column) = make_uint2(device::pack<T>(x[v].x * factor * w.x, x[v].y * factor * w.y),
                                                         device::pack<T>(x[v].z * factor * w.z, x[v].w * factor * w.w));
  }
  device::signal_done(args.done);
}

template <class T>
void launch(const AddRmsNormArgs& args, cudaStream_t stream) {
  const int vectors = args.width / kVector;
  if (vectors <= 256) {
    device::launch_overlapped(add_rms_norm<T, 256, 1>, args.tokens, 256, 0, stream, args);
  } else if (vectors <= 512) {
    device::launch_overlapped(add_rms_norm<T, 512, 1>, args.tokens, 512, 0, stream, args);
  } else if (vectors <= 1024) {
    device::launch_overlapped(add_rms_norm<T, 512, 2>, args.tokens, 512, 0, stream, args);
  } else if (vectors <= 2048) {
    device::launch_overlapped(add_rms_norm<T, 1024, 2>, args.tokens, 1024, 0, stream, args);
  } else {
    device::launch_overlapped(add_rms_norm<T, 1024, 4>, args.tokens, 1024, 0, stream, args);
  }
}

}  // namespace

void add_rms_norm_cuda(const AddRmsNormArgs& args, const Stream& stream) {
  CHECK_EQ(args.width % 8, 0);
  CHECK_LE(args.width, kMaxNormWidth);
  CHECK(args.rows == nullptr || args.delta == nullptr);
  if (args.tokens == 0) return;
  with_activation_type(args.dtype,
                       [&](auto element) { launch<typename decltype(element)::type>(args, stream.handle()); });
  LORIKEET_CHECK_CUDA(cudaGetLastError());
}

}  // namespace lorikeet::kernels
