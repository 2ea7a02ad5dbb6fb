// A block works on parts of pairs (row, KV head): each of its four warps goes through neighbouring segments of the row,
// 16 positions at a time, or 32 in fp8, with a small ring of keys and values in shared memory that it fills for itself.
//   scores [16 positions x 8 heads] = K [16 x head_dim] q^T;  out^T [head_dim x 8 heads] += V^T [head_dim x 16] P^T
// With few rows the blocks of a cluster share a pair and exchange results through their shared memory. A long row that is
// nearly alone is the work of several clusters, of which each block joins its share of the result with the same share of
// the others through global memory. With many rows each block takes whole pairs, and parts of long rows are joined there.
#include "kernels/attention/attention_decode_cuda.h"

#include <climits>

#include "kernels/attention/attention_shared.cuh"
#include "kernels/attention/decode_block_join.cuh"
#include "kernels/attention/decode_feed.cuh"
#include "kernels/attention/decode_join.cuh"
#include "kernels/attention/decode_rotate.cuh"
#include "kernels/attention/decode_tile.cuh"
#include "kernels/base/cuda_check.h"
#include "kernels/cuda/device_math.cuh"
#include "kernels/cuda/done_counter.cuh"
#include "kernels/cuda/element_dispatch.cuh"
#include "kernels/cuda/overlap_launch.cuh"

namespace lorikeet::kernels {
namespace {

using attention::Feed;
using attention::Item;
using attention::kPassItems;
using attention::kThreads;
using attention::kTile;
using attention::kWarps;
using attention::Shared;

// cluster: how many CTAs share their shared memory and, if the batch is divided so, every pair. most_parts: of a row.
//   grid     by DecodeDivision: clusters for every pair (row, KV head), or what fills the device; 128 threads, 243 to 250 registers
//            (203 for heads of 64), 432 B of stack
//   shared   Shared<T, Kv, kHeadDim>: a ring of keys and values per warp, q, results of the warps; <= 99 kB
//   device   8.0; clusters from 9.0 on
//   waits    for the kernel in front, having read block tables and contexts (kernels/cuda/WAITING.md says why it may); the
//            last part of a pair to arrive joins the parts, or, of several clusters, the last with a share of the pair its share; rows
//            of one sequence do not wait for each other (WAITING.md)
//   floor    86 % of it at one row and a context of 128k, 73 % at 32k, 41 % at 4k, 72 % at 64 rows and 512; with 2 and 1 KV heads 70 and 61 % at 128k; fp8 66 % at 8 rows and 8k, 52 % at one row and 32k
template <class T, class Kv, int kHeadDim>
__global__ void __launch_bounds__(kThreads, kDecodeBlocksPerMultiprocessor)
    decode_attention(const __grid_constant__ DecodeAttentionArgs args, int cluster, int most_parts) {
  constexpr int kSteps = kHeadDim / 16;  // tensor-core steps over head_dim (scores), and row tiles of out^T
  constexpr int kWaiting = 3;
  static_assert(kMostWarpSegments == 2 << kWaiting);
  extern __shared__ __align__(128) unsigned char shared_bytes[];
  using Memory = Shared<T, Kv, kHeadDim>;
  constexpr int kDepth = Memory::kDepth;
  constexpr int kStep = attention::kStepTiles<Kv>;
  auto& shared = *reinterpret_cast<Memory*>(shared_bytes);
  const int warp = threadIdx.x / device::kWarpSize;
  const int lane = threadIdx.x % device::kWarpSize;
  const int g = lane / 4;
  const float scale = args.scale * 1.4426950408889634F;  // log2 e: the softmax works in powers of two
  const int pairs = args.division.pairs_of_row();

  // The tables are a copy from the host, which is done before the step's first kernel begins.
  device::allow_next_kernel();
  const int pieces = args.pieces[0] & ~kDecodeRuns;
  const bool with_runs = args.rotate && (args.pieces[0] & kDecodeRuns) != 0;
  const int units = pieces * pairs;
  const int block = static_cast<int>(blockIdx.x);
  const int blocks = static_cast<int>(gridDim.x);
  // A cluster has a pair, or one of the largest size a part of it: then some have no work where no row is long.
  const bool several = cluster == kMostDecodeParts && units <= blocks;
  const bool share_pairs =
      several ? DecodePiece::of(args.pieces[1]).parts >= cluster : cluster > 1 && pieces == args.rows * cluster;
  const auto row_of = [&](int index) {  // of so many pairs: a division would take its time before anything is asked for
    return pairs == 1 ? index : static_cast<int>(__umulhi(index, args.division.pairs_inverse()));
  };
  for (int first_unit = block; first_unit < units; first_unit += kPassItems * blocks) {
    int items = 1;
#pragma unroll
    for (int i = 1; i < kPassItems; i++) items += first_unit + i * blocks < units ? 1 : 0;
    if (first_unit != block) __syncthreads();  // the items of the pass before are no longer read
    if (threadIdx.x < items) {
      const int unit = first_unit + static_cast<int>(threadIdx.x) * blocks;
      DecodePiece piece = {0, block & (cluster - 1), cluster};
      int pair = share_pairs ? block >> (31 - __clz(cluster)) : unit;  // `cluster` is a power of two
      const int counted = row_of(pair);
      pair -= counted * pairs;
      if (!share_pairs) {
        piece = DecodePiece::of(args.pieces[1 + counted]);
      } else if (several) {
        piece = DecodePiece::of(args.pieces[1 + counted * cluster + piece.part]);
      } else {
        piece.row = counted;
      }
      shared.items[threadIdx.x] = Item::of(args, piece, pair);
    }
    __syncthreads();
    if (with_runs) attention::store_earlier<T, Kv, kHeadDim>(args, shared, items);
    Feed<T, Kv, kHeadDim> feed(args, shared, items);
    if (!args.rotate) device::wait_for_previous_kernel();
    for (int i = 0; i < kDepth; i++) {  // with `rotate` all of it was stored by earlier steps, or just now
      feed.keys();
      feed.values();
    }
#if __CUDA_ARCH__ >= 900
    if (share_pairs) {  // of one item
      if (threadIdx.x == 0) {
        device::barrier_init(device::shared_address(&shared.all_received), 1);
        device::fence_barrier_init();
      }
      device::cluster_arrive();
    }
#endif
    if (args.rotate) {
      attention::rotate<T, Kv, kHeadDim>(args, shared, items);
      __syncthreads();
    }

    int slot = 0;
    for (int i = 0; i < items; i++) {
      const Item& item = shared.items[i];
      if (item.context == 0) continue;
      uint32_t query[kSteps][2];
      const T* q = args.rotate ? shared.queries[i][g]
                               : static_cast<const T*>(args.q) + item.token * args.q_stride +
                                     static_cast<int64_t>(item.first_head + g) * kHeadDim;
#pragma unroll
      for (int s = 0; s < kSteps; s++) {
        query[s][0] = query[s][1] = 0;
        if (g < item.heads) attention::load_query<T, Kv, kHeadDim>(q, s, query[s]);
      }

      // The warp's segments are neighbours, as many as a power of two: a result is joined when its neighbour is there.
      attention::WarpResult<kSteps> now;
      attention::WarpResult<kSteps> neighbour;          // over 1 segment
      attention::WarpResult<kSteps> waiting[kWaiting];  // over 2, 4 and 8; seldom touched: in local memory
      const int segments = item.segments;
      const int first_segment = item.first_segment(warp);
      int tile = item.segment_begin(first_segment);
#pragma unroll 1
      for (int segment = 0; segment < segments; segment++) {
        now.clear();
        const int end_tile = item.segment_begin(item.last_segment(first_segment, segment + 1));
        const int end = min(item.context, end_tile * kTile);
        // The step with the newest position, which the cache does not have yet.
        const int newest_tile = args.rotate && end_tile == item.tiles ? end_tile - kStep : INT_MAX;
#pragma unroll 1
        for (; tile < end_tile; tile += kStep) {
          constexpr int kBehind = 2 * kDepth - 1;  // groups of copies that were requested behind the awaited one
          device::wait_async_copies<kBehind>();
          __syncwarp();
          const bool newest = tile >= newest_tile;
          const int left = end - tile * kTile;  // positions; the newest is the last
          if (newest) attention::add_newest<T, Kv, kHeadDim, 0>(shared, warp, slot, i, left - 1);
          float score[kStep][4] = {};
          float position_scale[kStep][2];
#pragma unroll
          for (int u = 0; u < kStep; u++) {
            float odd[4] = {0, 0, 0, 0};
            attention::score_tile<T, Kv, kHeadDim>(shared.ring[warp][slot][0] + u * Memory::kTileBytes, query, score[u],
                                                   odd);
#pragma unroll
            for (int e = 0; e < 4; e++) score[u][e] = __fadd_rn(score[u][e], odd[e]);
#pragma unroll
            for (int half = 0; half < 2; half++) {
              position_scale[u][half] = scale;
              if constexpr (Memory::kFp8) {
                position_scale[u][half] *= shared.scales[warp][slot][0][u * kTile + half * 8 + g];
              }
            }
          }
          __syncwarp();  // the keys are no longer read
          feed.keys();

#pragma unroll
          for (int u = 0; u < kStep; u++) {
#pragma unroll
            for (int e = 0; e < 4; e++) {
              score[u][e] = u * kTile + g + e / 2 * 8 < left ? score[u][e] * position_scale[u][e / 2] : -INFINITY;
            }
          }
          float shrink[2];
#pragma unroll
          for (int h = 0; h < 2; h++) {
            float best = fmaxf(score[0][h], score[0][h + 2]);
#pragma unroll
            for (int u = 1; u < kStep; u++) best = fmaxf(best, fmaxf(score[u][h], score[u][h + 2]));
#pragma unroll
            for (int offset = 4; offset < device::kWarpSize; offset *= 2) {
              best = fmaxf(best, __shfl_xor_sync(device::kFullWarp, best, offset));
            }
            best = fmaxf(best, now.largest[h]);
            shrink[h] = attention::exp2_fast(now.largest[h] - best);
            now.largest[h] = best;
            float sum = 0;
#pragma unroll
            for (int u = 0; u < kStep; u++) {
              score[u][h] = attention::exp2_fast(score[u][h] - best);
              score[u][h + 2] = attention::exp2_fast(score[u][h + 2] - best);
              const float of_tile = __fadd_rn(score[u][h], score[u][h + 2]);
              sum = u == 0 ? of_tile : __fadd_rn(sum, of_tile);
            }
            // This lane's positions only, until the segment ends.
            now.sum[h] = __fmaf_rn(now.sum[h], shrink[h], sum);
          }
          uint2 p[kStep];
          const auto pack_scores = [&] {
#pragma unroll
            for (int u = 0; u < kStep; u++) {
              p[u].x = device::transpose_8x8(device::pack<T>(score[u][0], score[u][1]));
              p[u].y = device::transpose_8x8(device::pack<T>(score[u][2], score[u][3]));
            }
          };
          if constexpr (!Memory::kFp8) pack_scores();
          device::wait_async_copies<kBehind>();
          __syncwarp();
          if (newest) attention::add_newest<T, Kv, kHeadDim, 1>(shared, warp, slot, i, left - 1);
          if constexpr (Memory::kFp8) {
#pragma unroll
            for (int u = 0; u < kStep; u++) {
#pragma unroll
              for (int half = 0; half < 2; half++) {
                const float raised = attention::kRaised * shared.scales[warp][slot][1][u * kTile + half * 8 + g];
                score[u][2 * half] *= raised;
                score[u][2 * half + 1] *= raised;
              }
            }
            pack_scores();
          }
#pragma unroll
          for (int s = 0; s < kSteps; s++) {
            float(&out)[4] = now.out[s];
            out[0] *= shrink[0];
            out[1] *= shrink[1];
            out[2] *= shrink[0];
            out[3] *= shrink[1];
          }
#pragma unroll
          for (int u = 0; u < kStep; u++) {
            attention::add_values<T, Kv, kHeadDim>(shared.ring[warp][slot][1] + u * Memory::kTileBytes, p[u].x, p[u].y,
                                                   now.out);
          }
          __syncwarp();  // the values are no longer read
          feed.values();
          slot = (slot + 1) & (kDepth - 1);
        }
        tile = end_tile;
#pragma unroll
        for (int h = 0; h < 2; h++) {
#pragma unroll
          for (int offset = 4; offset < device::kWarpSize; offset *= 2) {
            now.sum[h] = __fadd_rn(now.sum[h], __shfl_xor_sync(device::kFullWarp, now.sum[h], offset));
          }
        }
        if constexpr (Memory::kFp8) {
#pragma unroll
          for (int s = 0; s < kSteps; s++) {
#pragma unroll
            for (int e = 0; e < 4; e++) now.out[s][e] *= 1 / attention::kRaised;
          }
        }
        if (segments == 1) break;
        if (segment % 2 == 0) {
          neighbour = now;
          continue;
        }
        now.join_behind(neighbour);
        int level = 0;
#pragma unroll 1
        for (int before = segment / 2; before % 2 != 0; before /= 2) now.join_behind(waiting[level++]);
        if (segment + 1 < segments) waiting[level] = now;
      }

      T* out = static_cast<T*>(args.out) + (static_cast<int64_t>(item.token) * args.heads + item.first_head) * kHeadDim;
#if __CUDA_ARCH__ >= 900
      if (share_pairs) {
        attention::join_cluster<T, Kv, kHeadDim>(args, now, item, shared, out, cluster, most_parts);
        continue;
      }
#endif
      attention::join_block<T, Kv, kHeadDim>(args, now, item, shared, out, most_parts);
    }
    device::wait_async_copies<0>();
  }
  device::wait_for_previous_kernel();
  device::signal_done(args.done);
}

}  // namespace

uint64_t decode_attention_workspace(int32_t rows, int32_t heads, int32_t kv_heads, int32_t head_dim) {
  const uint64_t places = static_cast<uint64_t>(DecodeDivision::most_pieces(rows)) * static_cast<uint64_t>(heads);
  const uint64_t of_clusters = uint64_t{kMostSpreadParts} * (head_dim / 4) * 6;
  return 4 * (attention::arrival_words(heads, kv_heads) + std::max(places * (2 + head_dim) + 4, of_clusters));
}

int32_t decode_attention_cuda(const DecodeAttentionArgs& args, const Stream& stream) {
  CHECK(args.cache.head_dim == 64 || args.cache.head_dim == 128) << "head size " << args.cache.head_dim;
  CHECK_EQ(args.heads % args.cache.kv_heads, 0);
  CHECK_EQ(args.cache.block_size & (args.cache.block_size - 1), 0);
  CHECK_GE(args.cache.block_size, 8);
  CHECK_LE(args.rows, kMaxDecodeRows);
  CHECK(args.cache.dtype != KvDtype::f8_e4m3 || args.cache.key_scales != nullptr);
  CHECK(!args.rotate || args.rope.heads == args.heads);
  if (args.rows == 0) return 0;
  int32_t blocks = 0;
  with_activation_type(args.dtype, [&](auto element) {
    with_kv_type(args.cache.dtype, [&](auto kv_element) {
      using T = typename decltype(element)::type;
      using Kv = typename decltype(kv_element)::type;
      const auto kernel = args.cache.head_dim == 128 ? decode_attention<T, Kv, 128> : decode_attention<T, Kv, 64>;
      device::LaunchShape shape;
      shape.shared_bytes = args.cache.head_dim == 128 ? sizeof(Shared<T, Kv, 128>) : sizeof(Shared<T, Kv, 64>);
      static_assert(sizeof(Shared<T, Kv, 128>) <= (99 << 10), "what a block of any device from 8.0 on can have");
      LORIKEET_CHECK_CUDA(cudaFuncSetAttribute(kernel, cudaFuncAttributeMaxDynamicSharedMemorySize,
                                               static_cast<int>(shape.shared_bytes)));
      shape.threads = kThreads;
      shape.overlap = device::waits_for_previous_kernel(kernel);
      shape.cluster =
          shape.overlap ? static_cast<unsigned>(args.division.cluster(args.rows)) : 1;  // code for 9.0 and on
      const int64_t pairs = int64_t{args.rows} * args.division.pairs_of_row();
      const int32_t most_parts = args.division.most_parts(args.rows);
      const int64_t most = pairs * most_parts;
      blocks = static_cast<int32_t>(shape.cluster == 1 ? std::min<int64_t>(most, args.division.blocks())
                                    : shape.cluster == kMostDecodeParts ? most
                                                                        : pairs * shape.cluster);
      shape.blocks = static_cast<unsigned>(blocks);
      device::launch(kernel, shape, stream.handle(), args, static_cast<int>(shape.cluster), most_parts);
    });
  });
  return blocks;
}

}  // namespace lorikeet::kernels
