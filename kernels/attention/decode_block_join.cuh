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

#if __CUDA_ARCH__ >= 900
// Each block of the cluster gets its share of the results of all warps of all blocks, and joins them. If the row is the
// work of several clusters, the last of their blocks with this share joins those of all.
template <class T, class Kv, int kHeadDim>
__device__ __forceinline__ void join_cluster(const DecodeAttentionArgs& args, const WarpResult<kHeadDim / 16>& result,
                                             const Item& item, Shared<T, Kv, kHeadDim>& shared, T* out, int blocks,
                                             int most_parts) {
  constexpr int kFours = kHeadDim / 4;
  const int warp = threadIdx.x / device::kWarpSize;
  const int lane = threadIdx.x % device::kWarpSize;
  const int rank = item.part & (blocks - 1);       // in the cluster
  const int share = item.heads * kFours / blocks;  // of a block, in fours
  const int leaf = rank * kWarps + warp;
  device::wait_async_copies<0>();
  __syncwarp();  // the warp's ring is free
  auto* mine = reinterpret_cast<float(*)[kHeadDim + 4]>(shared.ring[warp]);
  store_heads<Kv, kHeadDim>(result, mine);
  __syncwarp();
  device::cluster_wait();  // all blocks have begun
  if (lane < 4) {
#pragma unroll
    for (int h = 0; h < 2; h++) {
      const uint32_t place = device::shared_address(&shared.max_sum[leaf][2 * lane + h]);
      for (int b = 0; b < blocks; b++) {
        asm volatile("st.shared::cluster.v2.f32 [%0], {%1,%2};" ::"r"(device::cluster_address(place, b)),
                     "f"(result.largest[h]), "f"(result.sum[h])
                     : "memory");
      }
    }
  }
  int block = 0;
  int place = lane;  // in the block's share
#pragma unroll 4
  for (int four = lane; four < item.heads * kFours; four += device::kWarpSize) {
    while (place >= share) {
      place -= share;
      block++;
    }
    const float4 values = *reinterpret_cast<const float4*>(&mine[four / kFours][four % kFours * 4]);
    device::cluster_store_16(
        device::cluster_address(device::shared_address(&shared.received[leaf * share + place]), block), values);
    place += device::kWarpSize;
  }
  device::cluster_arrive();
  device::cluster_wait();

  const int first_four = rank * share;
  const int clusters = item.parts / blocks;
  // The results of the clusters: [rows * pairs, blocks of a cluster, most clusters of a row, fours of a share]. Rows of one
  // launch have different numbers of clusters.
  const int most_clusters = most_parts / blocks;
  const int counter = item.pair * blocks + rank;
  const int most_places = args.rows * args.division.pairs_of_row() * most_parts * kFours;
  const Partials partials = partials_of(args, most_parts);
  float4* const values = reinterpret_cast<float4*>(partials.max_sum) + counter * most_clusters * kFours;
  float2* const max_sums = reinterpret_cast<float2*>(reinterpret_cast<float4*>(partials.max_sum) + most_places) +
                           counter * most_clusters * kFours;
  join_leaves<kThreads>(
      blocks * kWarps, share,
      [&](int from, int four) {
        return Four{shared.max_sum[from][(first_four + four) / kFours], shared.received[from * share + four]};
      },
      [&](int four, const Four& joined) {
        if (clusters == 1) return joined.store(out + 4 * (first_four + four));
        const int place = item.part / blocks * kFours + four;
        values[place] = joined.values;
        max_sums[place] = joined.max_sum;
      });
  if (clusters == 1 || !arrives_last(partials, counter, clusters, shared.is_last)) return;
  join_leaves<kThreads>(
      clusters, share,
      [&](int from, int four) {
        return Four{__ldcg(&max_sums[from * kFours + four]), __ldcg(&values[from * kFours + four])};
      },
      [&](int four, const Four& joined) { joined.store(out + 4 * (first_four + four)); });
}
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
  const int warp = threadIdx.x / device::kWarpSize;
  const int lane = threadIdx.x % device::kWarpSize;
  __syncthreads();  // the results of the item before are no longer read
  store_heads<Kv, kHeadDim>(result, shared.warp_out[warp]);
  if (lane < 4) {
#pragma unroll
    for (int h = 0; h < 2; h++) shared.max_sum[warp][2 * lane + h] = make_float2(result.largest[h], result.sum[h]);
  }
  __syncthreads();
  const Partials partials = partials_of(args, most_parts);
#pragma unroll 1
  for (int four = threadIdx.x; four < item.heads * kFours; four += kThreads) {
    const int head = four / kFours;
    Four leaves[kWarps];
#pragma unroll
    for (int w = 0; w < kWarps; w++) {
      leaves[w].max_sum = shared.max_sum[w][head];
      leaves[w].values = *reinterpret_cast<const float4*>(&shared.warp_out[w][head][four % kFours * 4]);
    }
    join_tree(leaves);
    if (item.parts == 1) {
      leaves[0].store(out + 4 * four);
      continue;
    }
    const size_t place = (static_cast<size_t>(item.row) * most_parts + item.part) * args.heads + item.first_head + head;
    *reinterpret_cast<float4*>(&partials.out[place * kHeadDim + four % kFours * 4]) = leaves[0].values;
    if (four % kFours == 0) partials.max_sum[place] = leaves[0].max_sum;
  }
  if (item.parts == 1 || !arrives_last(partials, item.pair, item.parts, shared.is_last)) return;
  join_parts<T, kHeadDim>(args, partials, item, out);
}

}  // namespace lorikeet::kernels::attention
