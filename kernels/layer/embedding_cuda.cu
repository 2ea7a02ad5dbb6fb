#include "kernels/base/cuda_check.h"
#include "kernels/cuda/device_math.cuh"
#include "kernels/cuda/element_dispatch.cuh"
#include "kernels/cuda/overlap_launch.cuh"
#include "kernels/layer/embedding_cuda.h"

namespace lorikeet::kernels {
namespace {

constexpr int kThreads = 256;
constexpr int kVector = 8;  // elements of one 16-byte load

// CTA (token, part): a thread makes kVector neighbouring elements of the row.
//   grid     (tokens, hidden / 2,048), 256 threads, 36 registers, 2 kB of shared memory (A's row of an adapter)
//   waits    for nothing: the first kernel of a step is launched in the ordinary way. It zeroes the step's counters before it
//            lets the next kernel begin: those that look at them may overtake the kernels between (kernels/cuda/WAITING.md)
//   floor    not measured alone: tokens * hidden * (2 read + 4 written) bytes, 0.45 us at 64 tokens of 5,120
template <class T>
__global__ void __launch_bounds__(kThreads) embed(EmbeddingArgs args) {
  if (blockIdx.x == 0 && blockIdx.y == 0) {
    for (int i = threadIdx.x; i < args.num_done_counters; i += kThreads) args.done_counters[i] = 0;
    __threadfence();
    __syncthreads();
  }
  device::allow_next_kernel();
  const int token = blockIdx.x;
  const int given = args.token_ids[token];
  const int id = given >= 0 ? given : args.drawn[~given];
  if (blockIdx.y == 0 && threadIdx.x == 0) args.resolved[token] = id;
  const int row = min(max(id, 0), args.vocab - 1);

  DeviceEmbeddingLora lora;
  if (args.slots != nullptr && args.slots[token] >= 0) lora = args.lora[args.slots[token]];
  __shared__ float shrunk[kMaxEmbeddingLoraRank];
  if (lora.rank > 0) {
    const T* a = static_cast<const T*>(lora.a) + static_cast<size_t>(row) * lora.rank;
    for (int r = threadIdx.x; r < lora.rank; r += kThreads) shrunk[r] = device::to_float(a[r]);
    __syncthreads();
  }

  const int column = (blockIdx.y * kThreads + threadIdx.x) * kVector;
  if (column >= args.hidden) return;
  const T* weight = static_cast<const T*>(args.weight) + static_cast<size_t>(row) * args.hidden + column;
  const uint4 packed = *reinterpret_cast<const uint4*>(weight);
  const uint32_t words[4] = {packed.x, packed.y, packed.z, packed.w};
  float x[kVector];
#pragma unroll
  for (int i = 0; i < 4; i++) {
    const float2 pair = device::unpack<T>(words[i]);
    x[2 * i] = pair.x;
    x[2 * i + 1] = pair.y;
  }
  if (lora.rank > 0) {
#pragma unroll
    for (int i = 0; i < kVector; i++) {
      const T* b = static_cast<const T*>(lora.b) + static_cast<size_t>(column + i) * lora.rank;
      float sum = 0;
      for (int r = 0; r < lora.rank; r++) sum += device::to_float(b[r]) * shrunk[r];
      x[i] += lora.scale * sum;
    }
  }
  float4* out = reinterpret_cast<float4*>(args.residual + static_cast<size_t>(token) * args.hidden + column);
  out[0] = make_float4(x[0], x[1], x[2], x[3]);
  out[1] = make_float4(x[4], x[5], x[6], x[7]);
}

}  // namespace

void embedding_cuda(const EmbeddingArgs& args, const Stream& stream) {
  CHECK_EQ(args.hidden % kVector, 0);
  if (args.tokens == 0) return;
  const int parts = (args.hidden / kVector + kThreads - 1) / kThreads;
  with_activation_type(args.dtype, [&](auto element) {
    using T = typename decltype(element)::type;
    embed<T><<<dim3(args.tokens, parts), kThreads, 0, stream.handle()>>>(args);
    LORIKEET_CHECK_CUDA(cudaGetLastError());
  });
}

}  // namespace lorikeet::kernels
