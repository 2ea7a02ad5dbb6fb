// How the blocks of the decode attention join their results: those of a cluster, of the clusters of a row, of a row's
// parts. Included by attention_decode_cuda.cu.
#pragma once

#include "kernels/attention/attention_decode_cuda.h"
#include "kernels/attention/attention_shared.cuh"
#include "kernels/attention/decode_feed.cuh"
#include "kernels/attention/decode_join.cuh"
#include "kernels/attention/decode_tile.cuh"
#include "kernels/cuda/async_copy.cuh"
#include "kernels/cuda/device_math.cuh"
#include "kernels/cuda/done_counter.cuh"

namespace lorikeet::kernels::attention {

// Where the results of a row's blocks lie until the last of them joins them.
struct Partials {
  // [rows * pairs], or where clusters share a row for each of their blocks: how many are done; 0 between launches.
  int* arrivals;
  float2* max_sum;  // [rows, most_parts, heads]
  float* out;       // [rows, most_parts, heads, head_dim]
  int most_parts;   // of a row
};

__host__ __device__ inline uint64_t arrival_words(int heads, int kv_heads) {
  const int tiles = (heads / kv_heads + kHeadTile - 1) / kHeadTile;
  return (static_cast<uint64_t>(kMaxDecodeRows) * kv_heads * tiles + 63) / 64 * 64;
}

__device__ __forceinline__ Partials partials_of(const DecodeAttentionArgs& args, int most_parts) {
  Partials p;
  p.arrivals = reinterpret_cast<int*>(args.workspace);
  float* rest = args.workspace + arrival_words(args.heads, args.cache.kv_heads);
  p.max_sum = reinterpret_cast<float2*>(rest);
  p.out = rest + (2 * static_cast<size_t>(args.rows) * most_parts * args.heads + 3) / 4 * 4;
  p.most_parts = most_parts;
  return p;
}

// Whether this block is the last of so many that share a counter. Called by all threads when they have written.
__device__ __forceinline__ bool arrives_last(const Partials& partials, int counter, int blocks, bool& is_last) {
  __syncthreads();
  if (threadIdx.x == 0) {
    is_last = device::add_and_see(&partials.arrivals[counter], 1) == blocks - 1;
    if (is_last) partials.arrivals[counter] = 0;
  }
  __syncthreads();
  return is_last;
}

// The results of a block's warps, which lie in `out` and shared.max_sum: each four of the item's heads, joined, is given to `use`.
template <class T, class Kv, int kHeadDim, class Out, class Use>
__device__ __forceinline__ void join_warps(const Item& item, const Shared<T, Kv, kHeadDim>& shared, const Out& out,
                                           const Use& use) {
  constexpr int kFours = kHeadDim / 4;
#pragma unroll
  for (int first = 0; first < kHeadTile * kFours; first += kThreads) {
    const int four = first + static_cast<int>(threadIdx.x);
    if (four >= item.heads * kFours) return;
    const int head = four / kFours;
    Four leaves[kWarps];
#pragma unroll
    for (int w = 0; w < kWarps; w++) {
      leaves[w].max_sum = shared.max_sum[w][head];
      leaves[w].values = *reinterpret_cast<const float4*>(&out(w)[head][four % kFours * 4]);
    }
    join_tree(leaves);
    use(four, leaves[0]);
  }
}

template <class T, class Kv, int kHeadDim>
__device__ __forceinline__ void store_warp(const WarpResult<kHeadDim / 16>& result, Shared<T, Kv, kHeadDim>& shared,
                                           float (*out)[kHeadDim + 4]) {
  const int warp = threadIdx.x / device::kWarpSize;
  const int lane = threadIdx.x % device::kWarpSize;
  store_heads<Kv, kHeadDim>(result, out);
  if (lane < 4) {
#pragma unroll
    for (int h = 0; h < 2; h++) shared.max_sum[warp][2 * lane + h] = make_float2(result.largest[h], result.sum[h]);
  }
}

#if __CUDA_ARCH__ >= 900
// The blocks of a cluster give each of them its share of their results, every blocks-th four, and each joins its own, an
// element by each thread: what is left to do is on everybody's way, and a warp alone takes four clocks an instruction. If the
// row is the work of several clusters, the last of their blocks with this share joins those of all.
template <class T, class Kv, int kHeadDim>
__device__ __forceinline__ void join_cluster(const DecodeAttentionArgs& args, const WarpResult<kHeadDim / 16>& result,
                                             const Item& item, Shared<T, Kv, kHeadDim>& shared, T* out, int blocks,
                                             int most_parts) {
  constexpr int kFours = kHeadDim / 4;
  using Heads = float(*)[kHeadDim + 4];
  const int log2_blocks = 31 - __clz(blocks);
  const int rank = item.part & (blocks - 1);             // in the cluster
  const int share = item.heads * kFours >> log2_blocks;  // of a block, in fours
  const auto in_ring = [&](int warp) { return reinterpret_cast<Heads>(shared.ring[warp]); };
  const uint32_t all_received = device::shared_address(&shared.all_received);
  if (threadIdx.x == 0) device::barrier_expect(all_received, blocks * share * (sizeof(float4) + sizeof(float2)));
  device::wait_async_copies<0>();
  __syncwarp();  // the warp's ring is free
  store_warp<T, Kv, kHeadDim>(result, shared, in_ring(threadIdx.x / device::kWarpSize));
  __syncthreads();
  device::cluster_wait();  // all blocks have begun, and their barriers are there
  join_warps<T, Kv, kHeadDim>(item, shared, in_ring, [&](int four, const Four& joined) {
    const int place = rank * share + (four >> log2_blocks);
    const int block = four & (blocks - 1);
    const uint32_t barrier = device::cluster_address(all_received, block);
    device::cluster_store_counted(device::cluster_address(device::shared_address(&shared.received[place]), block),
                                  joined.values, barrier);
    device::cluster_store_counted(
        device::cluster_address(device::shared_address(&shared.received_max_sum[place]), block), joined.max_sum,
        barrier);
  });
  device::barrier_wait(all_received, 0);

  const int clusters = item.parts >> log2_blocks;
  // The results of the clusters: [rows * pairs, blocks of a cluster, most clusters of a row, fours of a share]. Rows of one
  // launch have different numbers of clusters.
  const int most_clusters = most_parts >> log2_blocks;
  const int counter = item.pair * blocks + rank;
  const int most_places = args.rows * args.division.pairs_of_row() * most_parts * kFours;
  const Partials partials = partials_of(args, most_parts);
  float4* const values = reinterpret_cast<float4*>(partials.max_sum) + counter * most_clusters * kFours;
  float2* const max_sums = reinterpret_cast<float2*>(reinterpret_cast<float4*>(partials.max_sum) + most_places) +
                           counter * most_clusters * kFours;
  const auto store = [&](int element, const One& joined) {
    out[4 * (rank + (element / 4 << log2_blocks)) + element % 4] =
        device::from_float<T>(joined.value / joined.max_sum.y);
  };
  for (int element = threadIdx.x; element < 4 * share; element += kThreads) {
    One leaves[kMostDecodeParts];
#pragma unroll
    for (int b = 0; b < kMostDecodeParts; b++) {
      leaves[b] = One{no_positions(), 0};
      if (b < blocks) {
        const int place = b * share + element / 4;
        leaves[b] = One{shared.received_max_sum[place],
                        reinterpret_cast<const float*>(shared.received)[b * 4 * share + element]};
      }
    }
    join_tree(leaves);
    if (clusters == 1) {
      store(element, leaves[0]);
      continue;
    }
    const int place = (item.part >> log2_blocks) * kFours;
    reinterpret_cast<float*>(values + place)[element] = leaves[0].value;
    if (element % 4 == 0) max_sums[place + element / 4] = leaves[0].max_sum;
  }
  if (clusters == 1 || !arrives_last(partials, counter, clusters, shared.is_last)) return;
  for (int element = threadIdx.x; element < 4 * share; element += kThreads) {
    One joined{no_positions(), 0};
    for (int first = 0; first < clusters; first += kMostDecodeParts) {  // 16 clusters at the most: two subtrees
      One leaves[kMostDecodeParts];
#pragma unroll
      for (int i = 0; i < kMostDecodeParts; i++) {
        leaves[i] = One{no_positions(), 0};
        const int place = (first + i) * kFours;
        if (first + i < clusters) {
          leaves[i] = One{__ldcg(&max_sums[place + element / 4]),
                          __ldcg(reinterpret_cast<const float*>(values + place) + element)};
        }
      }
      join_tree(leaves);
      if (first == 0) {
        joined = leaves[0];
      } else {
        joined.join(leaves[0]);
      }
    }
    store(element, joined);
  }
}
static_assert(kMostSpreadParts <= 2 * kMostDecodeParts * kMostDecodeParts);
#endif

// Joins the results of a pair's parts, which lie in memory.
template <class T, int kHeadDim>
__device__ __forceinline__ void join_parts(const DecodeAttentionArgs& args, const Partials& partials, const Item& item,
                                           T* out) {
  constexpr int kFours = kHeadDim / 4;
  const size_t first = static_cast<size_t>(item.row) * partials.most_parts * args.heads + item.first_head;
  join_leaves<kThreads>(
      item.parts, item.heads * kFours,
      [&](int part, int four) {
        const size_t head = first + static_cast<size_t>(part) * args.heads;
        return Four{__ldcg(&partials.max_sum[head + four / kFours]),
                    __ldcg(reinterpret_cast<const float4*>(partials.out + head * kHeadDim) + four)};
      },
      [&](int four, const Four& joined) { joined.store(out + 4 * four); });
}

// Joins the results of a block's warps; those of a pair's parts are joined by the block that arrives last.
template <class T, class Kv, int kHeadDim>
__device__ __forceinline__ void join_block(const DecodeAttentionArgs& args, const WarpResult<kHeadDim / 16>& result,
                                           const Item& item, Shared<T, Kv, kHeadDim>& shared, T* out, int most_parts) {
  constexpr int kFours = kHeadDim / 4;
  __syncthreads();  // the results of the item before are no longer read
  store_warp<T, Kv, kHeadDim>(result, shared, shared.warp_out[threadIdx.x / device::kWarpSize]);
  __syncthreads();
  const Partials partials = partials_of(args, most_parts);
  join_warps<T, Kv, kHeadDim>(
      item, shared, [&](int warp) { return shared.warp_out[warp]; },
      [&](int four, const Four& joined) {
        if (item.parts == 1) return joined.store(out + 4 * four);
        const int head = four / kFours;
        const size_t place =
            (static_cast<size_t>(item.row) * most_parts + item.part) * args.heads + item.first_head + head;
        *reinterpret_cast<float4*>(&partials.out[place * kHeadDim + four % kFours * 4]) = joined.values;
        if (four % kFours == 0) partials.max_sum[place] = joined.max_sum;
      });
  if (item.parts == 1 || !arrives_last(partials, item.pair, item.parts, shared.is_last)) return;
  join_parts<T, kHeadDim>(args, partials, item, out);
}

}  // namespace lorikeet::kernels::attention
