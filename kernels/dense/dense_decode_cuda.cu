// One block per processor. Each warp takes sets of 16 outputs and streams their weights through a ring of its own in
// shared memory: so much is on its way all the time, and nothing synchronises warps. As in dense_gemm, within a piece
// of 32 inputs the order of the sum is permuted, alike in weights and x.
#include <algorithm>

#include "kernels/base/cuda_check.h"
#include "kernels/cuda/device_math.cuh"
#include "kernels/cuda/element_dispatch.cuh"
#include "kernels/cuda/overlap_launch.cuh"
#include "kernels/dense/dense_decode_cuda.h"

namespace lorikeet::kernels {
namespace {

constexpr int kWarps = 16;
constexpr int kThreads = kWarps * device::kWarpSize;
constexpr int kOutputs = 16;      // of a set
constexpr int kStageInputs = 64;  // 128 bytes of each output: whole lines
constexpr int kStageBytes = kOutputs * kStageInputs * 2;
constexpr int kStages = 4;
constexpr int kRingBytes = kWarps * kStages * kStageBytes;
constexpr int kRowPadding = 64;  // bytes after a token's x: neighbouring tokens in other banks

__host__ __device__ constexpr int stages_of(int k) {
  return (k + kStageInputs - 1) / kStageInputs;
}
__host__ __device__ constexpr int x_row_bytes(int k) {
  return stages_of(k) * kStageInputs * 2 + kRowPadding;
}

// Byte of 16-byte chunk `chunk` of an output's part of a stage: rows that are read together lie in other banks.
__device__ __forceinline__ uint32_t chunk_at(int row, int chunk) {
  return row * (kStageInputs * 2) + ((chunk ^ (row % 2 * 4)) * 16);
}

// What a lane brings: 16 bytes of every fourth output of a set, stage by stage of set by set.
template <class T>
struct Feed {
  static constexpr int kRows = kOutputs / 4;
  const T* from[kRows];
  int set, column;

  __device__ __forceinline__ void enter(const DenseGemmArgs& args, int new_set, int lane) {
    set = new_set;
    column = lane % 8 * 8;
#pragma unroll
    for (int i = 0; i < kRows; i++) {
      const int output = min(set * kOutputs + i * 4 + lane / 8, args.n - 1);
      from[i] = static_cast<const T*>(args.weight) + static_cast<size_t>(output) * args.k + column;
    }
  }
  __device__ __forceinline__ void request(const DenseGemmArgs& args, uint32_t stage, int sets, int warps, int lane) {
    if (set < sets) {
      const bool valid = column < args.k;
#pragma unroll
      for (int i = 0; i < kRows; i++) {
        device::copy_async_16(stage + chunk_at(i * 4 + lane / 8, lane % 8), valid ? from[i] : args.weight, valid);
        from[i] += kStageInputs;
      }
      column += kStageInputs;
      if (column - lane % 8 * 8 >= args.k) enter(args, set + warps, lane);
    }
    device::commit_async_copies();  // or an empty one, as they are counted
  }
};

__device__ __forceinline__ uint4 load_shared(uint32_t address) {
  uint4 v;
  asm volatile("ld.shared.v4.u32 {%0,%1,%2,%3}, [%4];" : "=r"(v.x), "=r"(v.y), "=r"(v.z), "=r"(v.w) : "r"(address));
  return v;
}

// Large outputs for few tokens (lm_head): each warp streams the weights of its own outputs.
//   grid     a CTA a multiprocessor, 512 threads, 64 registers
//   shared   x of all tokens and a ring per warp: shared_bytes()
//   device   8.0, where shared_bytes() fits
//   waits    for the kernel in front, with the first weights already requested
template <class T, class Out>
__global__ void __launch_bounds__(kThreads, 1) dense_decode(DenseGemmArgs args) {
  extern __shared__ __align__(128) unsigned char shared[];
  const int warp = threadIdx.x / device::kWarpSize;
  const int lane = threadIdx.x % device::kWarpSize;
  const int g = lane / 4;
  const int t = lane % 4;
  const int sets = (args.n + kOutputs - 1) / kOutputs;
  const int warps = gridDim.x * kWarps;
  const int stages = stages_of(args.k);
  const uint32_t ring = device::shared_address(shared) + warp * (kStages * kStageBytes);
  device::allow_next_kernel();
  // Neighbouring sets lie in different blocks, so that all processors have as many or one more.
  const int first_set = warp * gridDim.x + blockIdx.x;
  Feed<T> feed;
  feed.enter(args, first_set, lane);
  // Weights are read-only: on their way before the kernel in front has ended.
#pragma unroll
  for (int i = 0; i < kStages - 1; i++) feed.request(args, ring + i * kStageBytes, sets, warps, lane);

  device::wait_for_previous_kernel();
  unsigned char* x_shared = shared + kRingBytes;
  const int chunks = stages * (kStageInputs / 8);
  for (int token = 0; token < args.m; token++) {
    const T* x = static_cast<const T*>(args.x) + token * args.x_stride;
    for (int chunk = threadIdx.x; chunk < chunks; chunk += kThreads) {
      *reinterpret_cast<uint4*>(x_shared + token * x_row_bytes(args.k) + chunk * 16) =
          chunk * 8 < args.k ? __ldcg(reinterpret_cast<const uint4*>(x + chunk * 8)) : make_uint4(0, 0, 0, 0);
    }
  }
  __syncthreads();

  // Columns without a token repeat the last token; their results are not used.
  const uint32_t x_lane = device::shared_address(x_shared) + min(g, args.m - 1) * x_row_bytes(args.k) + t * 16;
  int slot = 0;
  Out* out = static_cast<Out*>(args.out);
  for (int set = first_set; set < sets; set += warps) {
    float sum[4] = {};
    for (int step = 0; step < stages; step++) {
      device::wait_async_copies<kStages - 2>();
      __syncwarp();  // all lanes' copies are there, and the stage before this one has been read
      feed.request(args, ring + (slot + kStages - 1) % kStages * kStageBytes, sets, warps, lane);
      const uint32_t stage = ring + slot * kStageBytes;
      slot = (slot + 1) % kStages;
#pragma unroll
      for (int piece = 0; piece < kStageInputs / 32; piece++) {
        const uint4 w0 = load_shared(stage + chunk_at(g, piece * 4 + t));
        const uint4 w1 = load_shared(stage + chunk_at(g + 8, piece * 4 + t));
        const uint4 b = load_shared(x_lane + step * (kStageInputs * 2) + piece * 64);
        device::mma_m16n8k16<T>(sum, w0.x, w1.x, w0.y, w1.y, b.x, b.y);
        device::mma_m16n8k16<T>(sum, w0.z, w1.z, w0.w, w1.w, b.z, b.w);
      }
    }
#pragma unroll
    for (int i = 0; i < 4; i++) {
      const int token = 2 * t + i % 2;
      const int n = set * kOutputs + g + i / 2 * 8;
      if (token < args.m && n < args.n) out[token * args.out_stride + n] = device::from_float<Out>(sum[i]);
    }
  }
}

size_t shared_bytes(const DenseGemmArgs& args) {
  return static_cast<size_t>(kRingBytes) + static_cast<size_t>(args.m) * static_cast<size_t>(x_row_bytes(args.k));
}

int attribute(cudaDeviceAttr name) {
  int device = 0;
  int value = 0;
  LORIKEET_CHECK_CUDA(cudaGetDevice(&device));
  LORIKEET_CHECK_CUDA(cudaDeviceGetAttribute(&value, name, device));
  return value;
}

template <class T, class Out>
void launch(const DenseGemmArgs& args, cudaStream_t stream) {
  const auto bytes = shared_bytes(args);
  LORIKEET_CHECK_CUDA(
      cudaFuncSetAttribute(dense_decode<T, Out>, cudaFuncAttributeMaxDynamicSharedMemorySize, static_cast<int>(bytes)));
  const int sets = (args.n + kOutputs - 1) / kOutputs;
  const int blocks = std::min(attribute(cudaDevAttrMultiProcessorCount), (sets + kWarps - 1) / kWarps);
  device::launch_overlapped(dense_decode<T, Out>, static_cast<unsigned>(blocks), kThreads, bytes, stream, args);
}

}  // namespace

bool dense_decode_fits(const DenseGemmArgs& args) {
  return args.m <= kDenseDecodeRows &&
         shared_bytes(args) <= static_cast<size_t>(attribute(cudaDevAttrMaxSharedMemoryPerBlockOptin));
}

void dense_decode_cuda(const DenseGemmArgs& args, const Stream& stream) {
  with_activation_type(args.dtype, [&](auto element) {
    using T = typename decltype(element)::type;
    if (args.out_dtype == Dtype::f32) return launch<T, float>(args, stream.handle());
    CHECK(args.out_dtype == args.dtype) << name_of(args.out_dtype);
    launch<T, T>(args, stream.handle());
  });
}

}  // namespace lorikeet::kernels
