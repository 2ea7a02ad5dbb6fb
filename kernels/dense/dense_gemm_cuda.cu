// Weights are operand A of the tensor cores (16 outputs x 16 inputs), tokens the columns of B. A lane takes 16-byte
// pieces of its weight rows straight from memory: within a piece of 32 inputs the order of the sum is permuted, alike
// in A and B.
#include "kernels/base/cuda_check.h"
#include "kernels/cuda/device_math.cuh"
#include "kernels/cuda/element_dispatch.cuh"
#include "kernels/cuda/overlap_launch.cuh"
#include "kernels/dense/dense_decode_cuda.h"
#include "kernels/dense/dense_gemm_cuda.h"

namespace lorikeet::kernels {
namespace {

constexpr int kWarps = 4;
constexpr int kThreads = kWarps * device::kWarpSize;
constexpr int kPiece = 32;           // inputs of one 16-byte load by the four lanes of a row: two tensor-core steps
constexpr int kManyOutputs = 16384;  // from here on warps side by side over the outputs alone fill the device

// kSplit warps share the same outputs and take turns at the pieces of the inputs; kWarps / kSplit stand side by side.
// kTiles: column tiles, of 8 tokens each.
//   grid     (outputs / 16 / warps side by side, passes of 8 * kTiles tokens), 128 threads, 64 to 140 registers
//   shared   9 to 40 kB: a slice of x, sums of the warps
//   device   8.0
//   waits    for the kernel in front
template <class T, class Out, int kTiles, int kSplit>
__global__ void __launch_bounds__(kThreads) dense_gemm(DenseGemmArgs args) {
  constexpr int kTokens = 8 * kTiles;
  constexpr int kSlice = kTiles < 8 ? 256 : 128;  // inputs of x that are in shared memory at a time
  constexpr int kRowBytes = kSlice * 2 + 64;      // of a token's slice; the padding spreads the rows over the banks
  constexpr int kOutputs = 16 * (kWarps / kSplit);
  constexpr int kPieces = kSlice / kPiece / kSplit;  // of a warp in a slice
  __shared__ __align__(128) unsigned char slices[2][kTokens * kRowBytes];

  const int warp = threadIdx.x / device::kWarpSize;
  const int lane = threadIdx.x % device::kWarpSize;
  const int g = lane / 4;
  const int t = lane % 4;
  const int part = warp % kSplit;
  const int output = blockIdx.x * kOutputs + warp / kSplit * 16 + g;  // and output + 8
  const int first_token = blockIdx.y * kDenseGemmRows;
  const int tokens = min(args.m - first_token, kTokens);
  const T* weight0 = static_cast<const T*>(args.weight) + static_cast<size_t>(min(output, args.n - 1)) * args.k;
  const T* weight1 = static_cast<const T*>(args.weight) + static_cast<size_t>(min(output + 8, args.n - 1)) * args.k;
  const T* x = static_cast<const T*>(args.x) + static_cast<int64_t>(first_token) * args.x_stride;

  auto load_slice = [&](int begin, unsigned char* target) {
    constexpr int kChunks = kSlice / 8;
#pragma unroll
    for (int i = threadIdx.x; i < kTokens * kChunks; i += kThreads) {
      const int token = i / kChunks;
      const int column = begin + i % kChunks * 8;
      const bool valid = token < tokens && column < args.k;
      device::copy_async_16(device::shared_address(target) + token * kRowBytes + i % kChunks * 16,
                            valid ? x + token * args.x_stride + column : x, valid);
    }
    device::commit_async_copies();
  };
  auto load_weights = [&](int begin, uint4(&w)[kPieces][2]) {
#pragma unroll
    for (int p = 0; p < kPieces; p++) {
      const int column = begin + (p * kSplit + part) * kPiece + 8 * t;
      w[p][0] = w[p][1] = make_uint4(0, 0, 0, 0);
      if (column >= args.k) continue;
      w[p][0] = __ldcs(reinterpret_cast<const uint4*>(weight0 + column));
      w[p][1] = __ldcs(reinterpret_cast<const uint4*>(weight1 + column));
    }
  };

  float sum[kTiles][4] = {};
  uint4 weights[kPieces][2];
  device::allow_next_kernel();
  load_weights(0, weights);  // read-only: on its way before the kernel in front has ended
  device::wait_for_previous_kernel();
  load_slice(0, slices[0]);
  for (int begin = 0, buffer = 0; begin < args.k; begin += kSlice, buffer ^= 1) {
    device::wait_async_copies<0>();
    __syncthreads();  // this slice has arrived, and the other buffer is no longer read
    if (begin + kSlice < args.k) load_slice(begin + kSlice, slices[buffer ^ 1]);
    const unsigned char* slice = slices[buffer];
#pragma unroll
    for (int p = 0; p < kPieces; p++) {
      const uint4 w0 = weights[p][0];
      const uint4 w1 = weights[p][1];
      // The registers of this piece are free: they take the same piece of the next slice.
      const int next = begin + kSlice + (p * kSplit + part) * kPiece + 8 * t;
      if (next < args.k) {
        weights[p][0] = __ldcs(reinterpret_cast<const uint4*>(weight0 + next));
        weights[p][1] = __ldcs(reinterpret_cast<const uint4*>(weight1 + next));
      } else {
        weights[p][0] = weights[p][1] = make_uint4(0, 0, 0, 0);
      }
#pragma unroll
      for (int tile = 0; tile < kTiles; tile++) {
        const uint4 b = *reinterpret_cast<const uint4*>(slice + (8 * tile + g) * kRowBytes +
                                                        ((p * kSplit + part) * kPiece + 8 * t) * 2);
        device::mma_m16n8k16<T>(sum[tile], w0.x, w1.x, w0.y, w1.y, b.x, b.y);
        device::mma_m16n8k16<T>(sum[tile], w0.z, w1.z, w0.w, w1.w, b.z, b.w);
      }
    }
  }

  Out* out = static_cast<Out*>(args.out);
  if constexpr (kSplit == 1) {
#pragma unroll
    for (int tile = 0; tile < kTiles; tile++) {
#pragma unroll
      for (int i = 0; i < 4; i++) {
        const int token = 8 * tile + 2 * t + i % 2;
        const int n = output + i / 2 * 8;
        if (token < tokens && n < args.n) {
          out[(first_token + token) * args.out_stride + n] = device::from_float<Out>(sum[tile][i]);
        }
      }
    }
  } else {
    static_assert(kSplit == kWarps, "the parts of one set of outputs meet in shared memory");
    static_assert(sizeof(slices) >= kSplit * 16 * kTokens * sizeof(float));
    auto& partial = reinterpret_cast<float(&)[kSplit][16][kTokens]>(slices);
    __syncthreads();  // the slices are no longer read
#pragma unroll
    for (int tile = 0; tile < kTiles; tile++) {
#pragma unroll
      for (int i = 0; i < 4; i++) partial[part][g + i / 2 * 8][8 * tile + 2 * t + i % 2] = sum[tile][i];
    }
    __syncthreads();
    for (int i = threadIdx.x; i < 16 * tokens; i += kThreads) {
      const int token = i / 16;
      const int n = blockIdx.x * 16 + i % 16;
      float total = 0;
#pragma unroll
      for (int s = 0; s < kSplit; s++) total += partial[s][i % 16][token];
      if (n < args.n) out[(first_token + token) * args.out_stride + n] = device::from_float<Out>(total);
    }
  }
}

template <class T, class Out, int kTiles>
void launch_tiles(const DenseGemmArgs& args, cudaStream_t stream) {
  const int passes = (args.m + kDenseGemmRows - 1) / kDenseGemmRows;
  if (args.n >= kManyOutputs) {
    const int outputs = 16 * kWarps;
    const dim3 grid((args.n + outputs - 1) / outputs, passes);
    device::launch_overlapped(dense_gemm<T, Out, kTiles, 1>, grid, kThreads, 0, stream, args);
  } else {
    const dim3 grid((args.n + 15) / 16, passes);
    device::launch_overlapped(dense_gemm<T, Out, kTiles, kWarps>, grid, kThreads, 0, stream, args);
  }
}

template <class T, class Out>
void launch(const DenseGemmArgs& args, cudaStream_t stream) {
  if (args.m <= 8) return launch_tiles<T, Out, 1>(args, stream);
  if (args.m <= 16) return launch_tiles<T, Out, 2>(args, stream);
  if (args.m <= 32) return launch_tiles<T, Out, 4>(args, stream);
  launch_tiles<T, Out, 8>(args, stream);
}

}  // namespace

void dense_gemm_cuda(const DenseGemmArgs& args, const Stream& stream) {
  CHECK_EQ(args.k % 8, 0);
  CHECK_EQ(args.x_stride % 8, 0);
  if (args.m == 0 || args.n == 0) return;
  if (args.n >= kManyOutputs && dense_decode_fits(args)) return dense_decode_cuda(args, stream);
  with_activation_type(args.dtype, [&](auto element) {
    using T = typename decltype(element)::type;
    if (args.out_dtype == Dtype::f32) return launch<T, float>(args, stream.handle());
    CHECK(args.out_dtype == args.dtype) << name_of(args.out_dtype);
    launch<T, T>(args, stream.handle());
  });
}

}  // namespace lorikeet::kernels
