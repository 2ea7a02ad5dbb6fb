#include "kernels/base/cuda_check.h"
#include "kernels/cuda/device_math.cuh"
#include "kernels/cuda/done_counter.cuh"
#include "kernels/cuda/element_dispatch.cuh"
#include "kernels/cuda/overlap_launch.cuh"
#include "kernels/layer/rms_norm_cuda.h"
#include "kernels/layer/rms_norm_row.cuh"

namespace lorikeet::kernels {
namespace {

using device::kNormThreads;

// One CTA per row; the row stays in registers between the two passes.
//   grid     tokens, 512 threads, 40 registers (31 to 90: kVectors 1 to 8; 3 at a width of 5,120), 64 B of shared memory
//   waits    for the kernel in front, with the weight already in registers; counts itself done for LoRA's shrink
//   floor    latency alone at decode sizes: two rows read and two written, 60 kB at a width of 5,120
template <class T, int kVectors>
__global__ void __launch_bounds__(kNormThreads) add_rms_norm(AddRmsNormArgs args) {
  __shared__ float of_warp[device::kNormWarps];
  device::allow_next_kernel();
  float4 weight[kVectors];  // read-only
#pragma unroll
  for (int v = 0; v < kVectors; v++) {
    const int column = device::norm_column(v, static_cast<int>(threadIdx.x));
    if (column < args.width) weight[v] = __ldg(reinterpret_cast<const float4*>(args.weight + column));
  }
  device::wait_for_previous_kernel();

  const int token = blockIdx.x;
  const size_t row = args.rows == nullptr ? token : args.rows[token];
  const float* residual = args.residual + row * args.width;
  float* residual_out = (args.residual_out != nullptr ? args.residual_out : args.residual) + row * args.width;
  // All loads before the first store: it may be to what they read, so they would wait for each other.
  float4 x[kVectors];
  uint2 delta[kVectors];
#pragma unroll
  for (int v = 0; v < kVectors; v++) {
    const int column = device::norm_column(v, static_cast<int>(threadIdx.x));
    if (column >= args.width) continue;
    x[v] = *reinterpret_cast<const float4*>(residual + column);
    if (args.delta == nullptr) continue;
    delta[v] = *reinterpret_cast<const uint2*>(static_cast<const T*>(args.delta) + row * args.width + column);
  }
  float squares = 0;
#pragma unroll
  for (int v = 0; v < kVectors; v++) {
    const int column = device::norm_column(v, static_cast<int>(threadIdx.x));
    if (column >= args.width) continue;
    if (args.delta != nullptr) {
      x[v] = device::add_delta<T>(x[v], delta[v]);
      *reinterpret_cast<float4*>(residual_out + column) = x[v];
    }
    squares = device::add_squares(squares, x[v]);
  }
  squares = device::warp_sum(squares);
  if (threadIdx.x % device::kWarpSize == 0) of_warp[threadIdx.x / device::kWarpSize] = squares;
  __syncthreads();
  const float factor = device::norm_factor(of_warp, args.width, args.epsilon);
  T* out = static_cast<T*>(args.out) + static_cast<size_t>(token) * args.width;
#pragma unroll
  for (int v = 0; v < kVectors; v++) {
    const int column = device::norm_column(v, static_cast<int>(threadIdx.x));
    if (column < args.width) *reinterpret_cast<uint2*>(out + column) = device::normed<T>(x[v], factor, weight[v]);
  }
  device::signal_done(args.done);
}

template <class T, int kVectors>
void launch(const AddRmsNormArgs& args, cudaStream_t stream) {
  device::launch_overlapped(add_rms_norm<T, kVectors>, args.tokens, kNormThreads, 0, stream, args);
}

template <class T>
void launch_for_width(const AddRmsNormArgs& args, cudaStream_t stream) {
  constexpr int kColumns = kNormThreads * device::kNormVector;
  static_assert(8 * kColumns == kMaxNormWidth);
  if (args.width <= kColumns) return launch<T, 1>(args, stream);
  if (args.width <= 2 * kColumns) return launch<T, 2>(args, stream);
  if (args.width <= 3 * kColumns) return launch<T, 3>(args, stream);
  if (args.width <= 4 * kColumns) return launch<T, 4>(args, stream);
  launch<T, 8>(args, stream);
}

}  // namespace

void add_rms_norm_cuda(const AddRmsNormArgs& args, const Stream& stream) {
  CHECK_EQ(args.width % 8, 0);
  CHECK_LE(args.width, kMaxNormWidth);
  CHECK(args.rows == nullptr || args.delta == nullptr);
  if (args.tokens == 0) return;
  with_activation_type(
      args.dtype, [&](auto element) { launch_for_width<typename decltype(element)::type>(args, stream.handle()); });
  LORIKEET_CHECK_CUDA(cudaGetLastError());
}

}  // namespace lorikeet::kernels
