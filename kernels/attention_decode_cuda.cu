// A block works through consecutive splits of the rows' contexts. Its warps take 16 positions each at a time, every one
// with a small ring of keys and values in shared memory that it fills for itself.
//   scores [16 positions x 8 heads] = K [16 x head_dim] q^T;  out^T [head_dim x 8 heads] += V^T [head_dim x 16] P^T
#include <cfloat>

#include "kernels/attention_decode_cuda.h"
#include "kernels/attention_decode_feed.cuh"
#include "kernels/attention_shared.cuh"
#include "kernels/cuda_check.h"
#include "kernels/device_math.cuh"
#include "kernels/done_counter.cuh"
#include "kernels/element_dispatch.cuh"
#include "kernels/overlap_launch.cuh"
#include "kernels/rope_head.cuh"

namespace lorikeet::kernels {
namespace {

using attention::Feed;
using attention::Item;
using attention::kDepth;
using attention::kHeadTile;
using attention::kMostSplits;
using attention::kThreads;
using attention::kTile;
using attention::kWarps;
using attention::Shared;

constexpr int kBlocksPerMultiprocessor = 2;

__device__ __forceinline__ float exp2_fast(float x) {
  float y;
  asm("ex2.approx.ftz.f32 %0, %1;" : "=f"(y) : "f"(x));
  return y;
}

// Where the partial results lie: per split (counted over all rows) and query head.
struct Partials {
  int* arrivals;    // [rows, kv_heads, head tiles]: how many splits are done; 0 between launches
  float2* max_sum;  // [splits, heads]: the largest score (times log2 e) and the sum of 2^(score - largest)
  float* out;       // [splits, heads, head_dim]: sum of 2^(score - largest) * value
};

__host__ __device__ uint64_t arrival_words(int rows, int heads, int kv_heads) {
  const int tiles = (heads / kv_heads + kHeadTile - 1) / kHeadTile;
  return (static_cast<uint64_t>(rows) * kv_heads * tiles + 63) / 64 * 64;
}

__device__ Partials partials_of(const DecodeAttentionArgs& args) {
  Partials p;
  p.arrivals = reinterpret_cast<int*>(args.workspace);
  float* rest = args.workspace + arrival_words(kMaxDecodeRows, args.heads, args.cache.kv_heads);
  p.max_sum = reinterpret_cast<float2*>(rest);
  p.out = rest + (2 * static_cast<size_t>(args.rows) * args.policy.max_splits * args.heads + 3) / 4 * 4;
  return p;
}

// Joins the splits of a row one after the other, in registers or from memory: in both cases with these roundings.
struct Join {
  float keep, add;  // factors of what has been joined and of the next split

  __device__ __forceinline__ Join(float factor_of_joined, float factor_of_next)
      : keep(factor_of_joined), add(factor_of_next) {}

  // max_sum: of what has been joined; becomes that of both.
  __device__ __forceinline__ Join(float2& max_sum, float2 next) {
    const float largest = fmaxf(max_sum.x, next.x);
    keep = exp2_fast(max_sum.x - largest);
    add = exp2_fast(next.x - largest);
    max_sum = make_float2(largest, __fmaf_rn(next.y, add, __fmul_rn(max_sum.y, keep)));
  }
  __device__ __forceinline__ float one(float joined, float next) const {
    return __fmaf_rn(next, add, __fmul_rn(joined, keep));
  }
  __device__ __forceinline__ float4 operator()(float4 joined, float4 next) const {
    return make_float4(one(joined.x, next.x), one(joined.y, next.y), one(joined.z, next.z), one(joined.w, next.w));
  }
};

template <class T>
__device__ __forceinline__ void store_four(T* out, float4 total, float sum) {
  *reinterpret_cast<uint2*>(out) =
      make_uint2(device::pack<T>(total.x / sum, total.y / sum), device::pack<T>(total.z / sum, total.w / sum));
}
__device__ __forceinline__ float2 nothing_joined() {
  return make_float2(-FLT_MAX, 0);
}

template <class T, int kHeadDim>
__device__ __forceinline__ void rotate_queries(const DecodeAttentionArgs& args, const Item& item,
                                               Shared<T, kHeadDim>& shared) {
#pragma unroll 1
  for (int h = static_cast<int>(threadIdx.x) / device::kWarpSize; h < item.heads; h += kWarps) {
    device::RopeHead<T, kHeadDim>(args.rope, item.token, item.first_head + h).store(shared.queries[h]);
  }
}

// Joins the results of a pair's splits, which lie in memory, always in the order of their positions.
template <class T, int kHeadDim>
__device__ __forceinline__ void join_splits(const DecodeAttentionArgs& args, const Partials& partials, const Item& item,
                                            int parity, Shared<T, kHeadDim>& shared, T* out) {
  const size_t first = static_cast<size_t>(item.first_split) * args.heads + item.first_head;
  if (threadIdx.x < item.heads) {
    float2 all = nothing_joined();
#pragma unroll 4
    for (int s = 0; s < item.splits; s++) {
      const Join next(all, __ldcg(&partials.max_sum[first + static_cast<size_t>(s) * args.heads + threadIdx.x]));
      shared.factors[s][threadIdx.x] = make_float2(next.keep, next.add);
    }
    shared.joined_max_sum[parity][threadIdx.x] = all;
  }
  __syncthreads();
#pragma unroll 1
  for (int i = threadIdx.x; i < item.heads * (kHeadDim / 4); i += kThreads) {
    const int head = i / (kHeadDim / 4);
    const float4* from = reinterpret_cast<const float4*>(partials.out + first * kHeadDim) + i;
    float4 joined = make_float4(0, 0, 0, 0);
    constexpr int kBatch = 4;  // splits whose elements are on their way together
#pragma unroll 1
    for (int begin = 0; begin < item.splits; begin += kBatch) {
      float4 next[kBatch];
#pragma unroll
      for (int s = 0; s < kBatch; s++) {
        const int split = min(begin + s, item.splits - 1);
        next[s] = __ldcg(from + static_cast<size_t>(split) * args.heads * (kHeadDim / 4));
      }
#pragma unroll
      for (int s = 0; s < kBatch; s++) {
        if (begin + s >= item.splits) break;
        const float2 factor = shared.factors[begin + s][head];
        joined = Join{factor.x, factor.y}(joined, next[s]);
      }
    }
    store_four(out + 4 * i, joined, shared.joined_max_sum[parity][head].y);
  }
  __syncthreads();  // before `factors` and `joined_max_sum` are written again
}

template <class T, class Kv, int kHeadDim>
__global__ void __launch_bounds__(kThreads, kBlocksPerMultiprocessor)
    decode_attention(const __grid_constant__ DecodeAttentionArgs args) {
  constexpr int kSteps = kHeadDim / 16;  // tensor-core steps over head_dim (scores), and row tiles of out^T
  extern __shared__ __align__(128) unsigned char shared_bytes[];
  auto& shared = *reinterpret_cast<Shared<T, kHeadDim>*>(shared_bytes);
  const int warp = threadIdx.x / device::kWarpSize;
  const int lane = threadIdx.x % device::kWarpSize;
  const int g = lane / 4;
  const int t = lane % 4;
  const int kv_heads = args.cache.kv_heads;
  const float scale = args.scale * 1.4426950408889634F;  // log2 e: the softmax works in powers of two
  const Partials partials = partials_of(args);

  // The tables are a copy from the host, which is done before the step's first kernel begins.
  device::allow_next_kernel();
  for (int r = threadIdx.x; r <= args.rows; r += kThreads) shared.split_begins[r] = args.split_begins[r];
  __syncthreads();
  const unsigned head_tiles = (args.heads / kv_heads + kHeadTile - 1) / kHeadTile;
  const unsigned all_items = shared.split_begins[args.rows] * (kv_heads * head_tiles);
  const unsigned first_item = all_items * blockIdx.x / gridDim.x;
  const unsigned end_item = all_items * (blockIdx.x + 1) / gridDim.x;
  bool waited = false;

  for (unsigned pass = first_item; pass < end_item; pass += attention::kPassItems) {
    const int items = static_cast<int>(min(end_item - pass, static_cast<unsigned>(attention::kPassItems)));
    __syncthreads();  // the items of the pass before are no longer read
    if (threadIdx.x < items) {
      shared.items[threadIdx.x] = Item::of(args, shared.split_begins, head_tiles, pass + threadIdx.x);
    }
    __syncthreads();
    Feed<T, Kv, kHeadDim> feed(args, shared, items);
    int requested = 0;
    // With `rotate`, all positions but the rows' last ones were stored by earlier steps.
    for (; args.rotate && requested < kDepth && !(feed.more() && feed.newest()); requested++) {
      feed.keys();
      feed.values();
    }
    if (!waited) device::wait_for_previous_kernel();
    waited = true;
    if (args.rotate) {  // the first pair's queries, and the last positions of all pairs whose last split is here
      rotate_queries(args, shared.items[0], shared);
      int task = shared.items[0].heads;
      for (int i = 0; i < items; i++) {
        const Item& item = shared.items[i];
        if (item.split + 1 < item.splits) continue;
        const int slot = args.rope.kv_slots[item.token];
        for (int kind = 0; kind < 2; kind++, task++) {
          if (task % kWarps != warp || slot < 0) continue;
          const device::RopeHead<T, kHeadDim> head(args.rope, item.token, args.heads + kind * kv_heads + item.kv_head);
          device::store_kv<Kv>(head, kind == 0 ? args.cache.keys : args.cache.values, args.cache, item.kv_head, slot);
        }
      }
      __syncthreads();
    }
    for (; requested < kDepth; requested++) {
      feed.keys();
      feed.values();
    }

    int slot = 0;
    bool whole = false;  // all splits of the pair are this block's
    uint32_t query[kSteps][2];
    for (int i = 0; i < items; i++) {
      const Item& item = shared.items[i];
      const int parity = i % 2;
      if (i == 0 || item.split == 0) {
        whole = item.split == 0 && i + item.splits <= items;
        const T* q = static_cast<const T*>(args.q) + item.token * args.q_stride +
                     static_cast<int64_t>(item.first_head + g) * kHeadDim;
        if (args.rotate) {
          if (i > 0) {
            rotate_queries(args, item, shared);
            __syncthreads();
          }
          q = shared.queries[g];
        }
#pragma unroll
        for (int s = 0; s < kSteps; s++) {
#pragma unroll
          for (int half = 0; half < 2; half++) {
            query[s][half] = g < item.heads ? *reinterpret_cast<const uint32_t*>(q + 16 * s + 8 * half + 2 * t) : 0;
          }
        }
      }

      // One warp's online softmax over its tiles of the split.
      float largest[2] = {-INFINITY, -INFINITY};  // of heads 2t, 2t + 1; the same in all lanes of equal t
      float sum[2] = {0, 0};                      // this lane's positions only
      float acc[kSteps][4] = {};                  // out^T, unnormalised
      const int end = item.end;
#pragma unroll 1
      for (int tile = item.begin + warp * kTile; tile < end; tile += kWarps * kTile) {
        constexpr int kBehind = 2 * kDepth - 1;  // groups of copies that were requested behind the awaited one
        device::wait_async_copies<kBehind>();
        __syncwarp();
        const uint32_t keys = device::shared_address(shared.ring[warp][slot][0]);
        float score[4] = {0, 0, 0, 0};
#pragma unroll
        for (int s = 0; s < kSteps; s++) {
          uint32_t a[4];
          device::load_matrices(a, keys + attention::swizzled<kHeadDim>(lane % 16, 2 * s + lane / 16));
          device::mma_m16n8k16<T>(score, a[0], a[1], a[2], a[3], query[s][0], query[s][1]);
        }
        __syncwarp();  // the keys are no longer read
        feed.keys();

        score[0] = tile + g < end ? score[0] * scale : -INFINITY;
        score[1] = tile + g < end ? score[1] * scale : -INFINITY;
        score[2] = tile + g + 8 < end ? score[2] * scale : -INFINITY;
        score[3] = tile + g + 8 < end ? score[3] * scale : -INFINITY;
        float shrink[2];
#pragma unroll
        for (int h = 0; h < 2; h++) {
          float best = fmaxf(score[h], score[h + 2]);
#pragma unroll
          for (int offset = 4; offset < device::kWarpSize; offset *= 2) {
            best = fmaxf(best, __shfl_xor_sync(device::kFullWarp, best, offset));
          }
          best = fmaxf(best, largest[h]);
          shrink[h] = exp2_fast(largest[h] - best);
          largest[h] = best;
          score[h] = exp2_fast(score[h] - best);
          score[h + 2] = exp2_fast(score[h + 2] - best);
          sum[h] = __fmaf_rn(sum[h], shrink[h], score[h] + score[h + 2]);
        }
        const uint32_t p0 = device::transpose_8x8(device::pack<T>(score[0], score[1]));
        const uint32_t p1 = device::transpose_8x8(device::pack<T>(score[2], score[3]));
        device::wait_async_copies<kBehind>();
        __syncwarp();
        const uint32_t values = device::shared_address(shared.ring[warp][slot][1]);
#pragma unroll
        for (int s = 0; s < kSteps; s++) {
          acc[s][0] *= shrink[0];
          acc[s][1] *= shrink[1];
          acc[s][2] *= shrink[0];
          acc[s][3] *= shrink[1];
          uint32_t a[4];
          device::load_matrices_transposed(
              a, values + attention::swizzled<kHeadDim>(lane % 8 + lane / 16 * 8, 2 * s + lane / 8 % 2));
          device::mma_m16n8k16<T>(acc[s], a[0], a[1], a[2], a[3], p0, p1);
        }
        __syncwarp();  // the values are no longer read
        feed.values();
        slot = (slot + 1) % kDepth;
      }

      // The warps' results meet in shared memory and are added in the order of the warps.
#pragma unroll
      for (int h = 0; h < 2; h++) {
#pragma unroll
        for (int offset = 4; offset < device::kWarpSize; offset *= 2) {
          sum[h] += __shfl_xor_sync(device::kFullWarp, sum[h], offset);
        }
        if (g == 0) shared.warp_max_sum[warp][2 * t + h] = make_float2(largest[h], sum[h]);
      }
#pragma unroll
      for (int s = 0; s < kSteps; s++) {
#pragma unroll
        for (int e = 0; e < 4; e++) {
          shared.warp_out[warp][2 * t + e % 2][16 * s + g + e / 2 * 8] = acc[s][e];
        }
      }
      __syncthreads();
      const size_t place = static_cast<size_t>(item.first_split + item.split) * args.heads + item.first_head;
      T* out = static_cast<T*>(args.out) + (static_cast<int64_t>(item.token) * args.heads + item.first_head) * kHeadDim;
#pragma unroll 1
      for (int e = threadIdx.x; e < item.heads * (kHeadDim / 4); e += kThreads) {
        const int head = e / (kHeadDim / 4);
        const int four = e % (kHeadDim / 4);
        float2 of_warp[kWarps];
        float most = -INFINITY;
#pragma unroll
        for (int w = 0; w < kWarps; w++) {
          of_warp[w] = shared.warp_max_sum[w][head];
          most = fmaxf(most, of_warp[w].x);
        }
        float2 max_sum = make_float2(most, 0);
        float4 total = make_float4(0, 0, 0, 0);
#pragma unroll
        for (int w = 0; w < kWarps; w++) {
          const float weight = exp2_fast(of_warp[w].x - most);
          const float4 x = *reinterpret_cast<const float4*>(&shared.warp_out[w][head][4 * four]);
          max_sum.y = __fmaf_rn(weight, of_warp[w].y, max_sum.y);
          total = make_float4(__fmaf_rn(weight, x.x, total.x), __fmaf_rn(weight, x.y, total.y),
                              __fmaf_rn(weight, x.z, total.z), __fmaf_rn(weight, x.w, total.w));
        }
        if (!whole) {
          *reinterpret_cast<float4*>(&partials.out[(place + head) * kHeadDim + 4 * four]) = total;
          if (four == 0) partials.max_sum[place + head] = max_sum;
          continue;
        }
        float2 all = item.split == 0 ? nothing_joined() : shared.joined_max_sum[parity ^ 1][head];
        const Join next(all, max_sum);
        total = next(item.split == 0 ? make_float4(0, 0, 0, 0) : shared.joined[e], total);
        if (item.split + 1 == item.splits) {
          store_four(out + 4 * e, total, all.y);
        } else {
          shared.joined[e] = total;
          if (four == 0) shared.joined_max_sum[parity][head] = all;
        }
      }
      __syncthreads();  // the warps' results are no longer read
      if (whole || (item.split + 1 < item.splits && i + 1 < items)) continue;

      // The block that arrives last joins the splits.
      if (threadIdx.x == 0) {
        const int done = i - max(0, i - item.split) + 1;  // splits of the pair in this pass
        shared.is_last = device::add_and_see(&partials.arrivals[item.pair], done) == item.splits - done;
        if (shared.is_last) partials.arrivals[item.pair] = 0;
      }
      __syncthreads();
      if (shared.is_last) join_splits(args, partials, item, parity, shared, out);
    }
    device::wait_async_copies<0>();
  }
  if (!waited) device::wait_for_previous_kernel();
  device::signal_done(args.done);
}

}  // namespace

uint64_t decode_attention_workspace(int32_t rows, int32_t heads, int32_t kv_heads, int32_t head_dim,
                                    const SplitPolicy& policy) {
  const uint64_t places = static_cast<uint64_t>(rows) * policy.max_splits * heads;
  return 4 * (arrival_words(kMaxDecodeRows, heads, kv_heads) + places * (2 + head_dim) + 4);
}

int32_t decode_attention_cuda(const DecodeAttentionArgs& args, const Stream& stream) {
  const int32_t kv_heads = args.cache.kv_heads;
  CHECK(args.cache.head_dim == 64 || args.cache.head_dim == 128) << "head size " << args.cache.head_dim;
  CHECK_EQ(args.heads % kv_heads, 0);
  CHECK_EQ(args.cache.block_size & (args.cache.block_size - 1), 0);
  CHECK_LE(args.rows, kMaxDecodeRows);
  CHECK_LE(args.policy.max_splits, kMostSplits);
  CHECK(!args.rotate || args.rope.heads == args.heads);
  if (args.rows == 0) return 0;
  const int head_tiles = (args.heads / kv_heads + kHeadTile - 1) / kHeadTile;
  CHECK_GE(args.cache.block_size, 8);
  const int64_t most_items = static_cast<int64_t>(args.rows) * args.policy.max_splits * kv_heads * head_tiles;
  const auto blocks = static_cast<int32_t>(
      std::min<int64_t>(most_items, static_cast<int64_t>(args.multiprocessors) * kBlocksPerMultiprocessor));
  CHECK_LT(most_items * (blocks + 1), int64_t{1} << 32);
  with_activation_type(args.dtype, [&](auto element) {
    with_kv_type(args.cache.dtype, [&](auto kv_element) {
      using T = typename decltype(element)::type;
      using Kv = typename decltype(kv_element)::type;
      const auto kernel = args.cache.head_dim == 128 ? decode_attention<T, Kv, 128> : decode_attention<T, Kv, 64>;
      const size_t shared = args.cache.head_dim == 128 ? sizeof(Shared<T, 128>) : sizeof(Shared<T, 64>);
      static_assert(sizeof(Shared<T, 128>) <= (99 << 10), "what a block of any device from 8.0 on can have");
      LORIKEET_CHECK_CUDA(
          cudaFuncSetAttribute(kernel, cudaFuncAttributeMaxDynamicSharedMemorySize, static_cast<int>(shared)));
      device::launch_overlapped(kernel, static_cast<unsigned>(blocks), kThreads, shared, stream.handle(), args);
    });
  });
  return blocks;
}

}  // namespace lorikeet::kernels
