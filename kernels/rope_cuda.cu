#include "kernels/cuda_check.h"
#include "kernels/device_math.cuh"
#include "kernels/element_dispatch.cuh"
#include "kernels/overlap_launch.cuh"
#include "kernels/rope_cuda.h"

namespace lorikeet::kernels {
namespace {

constexpr int kAngleThreads = 128;
constexpr int kWarps = 8;

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

template <class Kv>
__device__ __forceinline__ Kv to_kv(float x) {
  if constexpr (sizeof(Kv) == 1) {
    Kv v;
    v.__x = device::to_fp8(x);
    return v;
  } else {
    return device::from_float<Kv>(x);
  }
}

// One warp per head of a token. A lane holds kPairs neighbouring elements of the lower half of the head (x) and their
// partners in the upper half (y).
template <class T, class Kv, int kHeadDim>
__global__ void __launch_bounds__(kWarps* device::kWarpSize) rope_and_store(RopeArgs args) {
  constexpr int kPairs = kHeadDim / 2 / device::kWarpSize;
  device::allow_next_kernel();
  device::wait_for_previous_kernel();
  const int token = blockIdx.x;
  const int head = blockIdx.y * kWarps + threadIdx.x / device::kWarpSize;  // q heads, then k, then v
  const int kv_heads = args.cache.kv_heads;
  if (head >= args.heads + 2 * kv_heads) return;
  const bool is_q = head < args.heads;
  const bool is_v = head >= args.heads + kv_heads;
  const int first = threadIdx.x % device::kWarpSize * kPairs;

  T* source = static_cast<T*>(args.qkv) + (static_cast<size_t>(token) * (args.heads + 2 * kv_heads) + head) * kHeadDim;
  float x[kPairs];
  float y[kPairs];
#pragma unroll
  for (int i = 0; i < kPairs; i++) {
    x[i] = device::to_float(source[first + i]);
    y[i] = device::to_float(source[first + i + kHeadDim / 2]);
    if (args.bias != nullptr) {
      x[i] += args.bias[head * kHeadDim + first + i];
      y[i] += args.bias[head * kHeadDim + first + i + kHeadDim / 2];
    }
  }

  const float* norm = is_v ? nullptr : is_q ? args.q_norm : args.k_norm;
  if (norm != nullptr) {
    float squares = 0;
#pragma unroll
    for (int i = 0; i < kPairs; i++) squares += x[i] * x[i] + y[i] * y[i];
    const float factor = rsqrtf(device::warp_sum(squares) / static_cast<float>(kHeadDim) + args.norm_epsilon);
#pragma unroll
    for (int i = 0; i < kPairs; i++) {
      x[i] *= factor * norm[first + i];
      y[i] *= factor * norm[first + i + kHeadDim / 2];
    }
  }

  if (!is_v) {
    const float2* cos_sin = reinterpret_cast<const float2*>(args.cos_sin) + static_cast<size_t>(token) * (kHeadDim / 2);
    float scale = 1;
    if (is_q && args.log_n_length > 0 && args.positions[token] + 1 > args.log_n_length) {
      scale = logf(static_cast<float>(args.positions[token] + 1)) / logf(static_cast<float>(args.log_n_length));
    }
#pragma unroll
    for (int i = 0; i < kPairs; i++) {
      const float2 c = cos_sin[first + i];
      const float rotated = x[i] * c.x - y[i] * c.y;
      y[i] = (y[i] * c.x + x[i] * c.y) * scale;
      x[i] = rotated * scale;
    }
  }

  if (is_q) {
#pragma unroll
    for (int i = 0; i < kPairs; i++) {
      source[first + i] = device::from_float<T>(x[i]);
      source[first + i + kHeadDim / 2] = device::from_float<T>(y[i]);
    }
    return;
  }
  const int slot = args.kv_slots[token];
  if (slot < 0) return;
  const int kv_head = head - args.heads - (is_v ? kv_heads : 0);
  const int block = slot / args.cache.block_size;
  const int offset = slot % args.cache.block_size;
  Kv* target = static_cast<Kv*>(is_v ? args.cache.values : args.cache.keys) +
               ((static_cast<size_t>(block) * kv_heads + kv_head) * args.cache.block_size + offset) * kHeadDim;
#pragma unroll
  for (int i = 0; i < kPairs; i++) {
    target[first + i] = to_kv<Kv>(x[i]);
    target[first + i + kHeadDim / 2] = to_kv<Kv>(y[i]);
  }
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
