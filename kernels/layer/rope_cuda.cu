#include "kernels/base/cuda_check.h"
#include "kernels/cuda/device_math.cuh"
#include "kernels/cuda/element_dispatch.cuh"
#include "kernels/cuda/overlap_launch.cuh"
#include "kernels/layer/rope_cuda.h"
#include "kernels/layer/rope_head.cuh"

namespace lorikeet::kernels {
namespace {

constexpr int kAngleThreads = 128;
constexpr int kWarps = 8;

// One thread per angle of a token; once a step, for all layers.
//   grid     tokens * head_dim / 2 / 128, 128 threads, 17 registers (32 B of stack: the sine of large angles)
//   waits    for the kernel in front
__global__ void __launch_bounds__(kAngleThreads) rope_angles(RopeAnglesArgs args) {
  device::allow_next_kernel();
  device::wait_for_previous_kernel();
  const int half = args.head_dim / 2;
  const int64_t i = static_cast<int64_t>(blockIdx.x) * kAngleThreads + threadIdx.x;
  if (i >= static_cast<int64_t>(args.tokens) * half) return;
  const int token = static_cast<int>(i / half);
  const int frequency = static_cast<int>(i % half);
  const int table = args.table_of_token == nullptr ? 0 : args.table_of_token[token];
  // The product is rounded to float before the sine is taken, as transformers does.
  const float angle =
      __fmul_rn(static_cast<float>(args.positions[token]), args.inverse_frequencies[table * half + frequency]);
  float sine;
  float cosine;
  sincosf(angle, &sine, &cosine);
  reinterpret_cast<float2*>(args.cos_sin)[i] = make_float2(cosine * args.factor, sine * args.factor);
}

// One warp per head of a token; prompts alone, as decode attention does this itself.
//   grid     (tokens, (heads + 2 * kv_heads) / 8), 256 threads, 40 registers, no shared memory
//   waits    for the kernel in front
template <class T, class Kv, int kHeadDim>
__global__ void __launch_bounds__(kWarps* device::kWarpSize) rope_and_store(RopeArgs args) {
  device::allow_next_kernel();
  device::wait_for_previous_kernel();
  const int token = blockIdx.x;
  const int head = blockIdx.y * kWarps + threadIdx.x / device::kWarpSize;  // q heads, then k, then v
  const int kv_heads = args.cache.kv_heads;
  if (head >= args.heads + 2 * kv_heads) return;
  device::RopeHead<T, kHeadDim> made;
  made.load_weights(args, head);
  made.load(args, token, head);
  made.make(args, head);
  if (head < args.heads) {
    made.store(static_cast<T*>(args.qkv) +
               (static_cast<size_t>(token) * (args.heads + 2 * kv_heads) + head) * kHeadDim);
    return;
  }
  const int slot = args.kv_slots[token];
  if (slot < 0) return;
  const bool is_v = head >= args.heads + kv_heads;
  made.template store_kv<Kv>(args.cache, is_v, head - args.heads - (is_v ? kv_heads : 0), slot,
                             made.template scale_of<Kv>());
}

}  // namespace

void rope_angles_cuda(const RopeAnglesArgs& args, const Stream& stream) {
  const int64_t angles = static_cast<int64_t>(args.tokens) * (args.head_dim / 2);
  if (angles == 0) return;
  const auto blocks = static_cast<unsigned>((angles + kAngleThreads - 1) / kAngleThreads);
  device::launch_overlapped(rope_angles, blocks, kAngleThreads, 0, stream.handle(), args);
}

void rope_and_store_kv_cuda(const RopeArgs& args, const Stream& stream) {
  CHECK(args.cache.head_dim == 64 || args.cache.head_dim == 128) << "head size " << args.cache.head_dim;
  if (args.tokens == 0) return;
  const dim3 grid(args.tokens, (args.heads + 2 * args.cache.kv_heads + kWarps - 1) / kWarps);
  with_activation_type(args.dtype, [&](auto element) {
    with_kv_type(args.cache.dtype, [&](auto kv_element) {
      using T = typename decltype(element)::type;
      using Kv = typename decltype(kv_element)::type;
      const auto kernel = args.cache.head_dim == 128 ? rope_and_store<T, Kv, 128> : rope_and_store<T, Kv, 64>;
      device::launch_overlapped(kernel, grid, kWarps * device::kWarpSize, 0, stream.handle(), args);
    });
  });
}

}  // namespace lorikeet::kernels
