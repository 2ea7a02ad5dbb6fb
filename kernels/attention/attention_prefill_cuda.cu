#include "kernels/attention/attention_prefill_cuda.h"
#include "kernels/attention/attention_shared.cuh"
#include "kernels/base/cuda_check.h"
#include "kernels/cuda/device_math.cuh"
#include "kernels/cuda/element_dispatch.cuh"
#include "kernels/cuda/overlap_launch.cuh"

namespace lorikeet::kernels {
namespace {

constexpr int kWarps = 4;  // each has 16 of the queries
constexpr int kThreads = kWarps * device::kWarpSize;
constexpr int kKeyTile = 64;  // positions of one step

using attention::kChunk;
using attention::swizzled;

// Copies positions [tile, tile + kKeyTile) of keys and values to shared memory; positions from `end` on become zero.
template <class T, class Kv, int kHeadDim>
__device__ __forceinline__ void load_tile(const PrefillAttentionArgs& args, const int* block_table, int kv_head,
                                          int tile, int end, T* keys, T* values) {
  constexpr int kChunks = kHeadDim / kChunk;
  const KvCacheLayer& cache = args.cache;
  const int block_shift = 31 - __clz(cache.block_size);
#pragma unroll
  for (int i = threadIdx.x; i < kKeyTile * kChunks; i += kThreads) {
    const int row = i / kChunks;
    const int chunk = i % kChunks;
    const int position = tile + row;
    const bool valid = position < end;
    size_t place = 0;
    float key_scale = 1;
    float value_scale = 1;
    if (valid) {
      const int block = block_table[position >> block_shift];
      const int cache_row = (block * cache.kv_heads + kv_head) * cache.block_size + (position & (cache.block_size - 1));
      place = static_cast<size_t>(cache_row) * kHeadDim + chunk * kChunk;
      if constexpr (sizeof(Kv) == 1) {
        key_scale = cache.key_scales[cache_row];
        value_scale = cache.value_scales[cache_row];
      }
    }
    const Kv* key = static_cast<const Kv*>(cache.keys) + place;
    const Kv* value = static_cast<const Kv*>(cache.values) + place;
    const uint32_t target = swizzled<kHeadDim>(row, chunk);
    attention::fetch_chunk<T>(device::shared_address(keys) + target, key, valid, key_scale);
    attention::fetch_chunk<T>(device::shared_address(values) + target, value, valid, value_scale);
  }
  device::commit_async_copies();
}

// CTA (head, tile of queries). The two buffers for keys and values alternate: one is filled while the other is used.
//   grid     (heads, tiles of 64 queries), 128 threads, 212 or 216 registers (142 to 159 for heads of 64), two on a multiprocessor
//   shared   4 * kKeyTile * kHeadDim elements: keys and values, two buffers
//   device   8.0 (cp.async, mma.sync)
//   waits    for the kernel in front
template <class T, class Kv, int kHeadDim>
__global__ void __launch_bounds__(kThreads, 2) prefill_attention(PrefillAttentionArgs args) {
  constexpr int kSteps = kHeadDim / 16;      // tensor-core steps over head_dim
  constexpr int kColumns = kKeyTile / 8;     // column tiles of the scores
  constexpr int kOutColumns = kHeadDim / 8;  // column tiles of the output
  constexpr int kBuffer = kKeyTile * kHeadDim;
  extern __shared__ __align__(128) unsigned char shared[];
  device::allow_next_kernel();
  device::wait_for_previous_kernel();
  T* const buffers = reinterpret_cast<T*>(shared);

  const int tile_index = args.tiles - 1 - static_cast<int>(blockIdx.y);  // long contexts first
  const int row = args.tile_rows[tile_index];
  const int first = args.tile_firsts[tile_index];
  const int count = args.counts[row];
  const int start = args.starts[row];
  const int head = blockIdx.x;
  const int kv_head = head / (args.heads / args.cache.kv_heads);
  const int* block_table = args.block_tables + args.table_begins[row];
  const int warp = threadIdx.x / device::kWarpSize;
  const int lane = threadIdx.x % device::kWarpSize;
  const int g = lane / 4;
  const int t = lane % 4;
  const int end = start + min(first + kPrefillQueryTile, count);  // positions that the tile attends to
  const int steps = (end + kKeyTile - 1) / kKeyTile;

  load_tile<T, Kv, kHeadDim>(args, block_table, kv_head, 0, end, buffers, buffers + kBuffer);

  const int query0 = first + warp * 16 + g;  // this lane's two queries, counted within the row
  const int query1 = query0 + 8;
  uint32_t q[kSteps][4];
  {
    const int64_t token0 = args.first_tokens[row] + min(query0, count - 1);
    const int64_t token1 = args.first_tokens[row] + min(query1, count - 1);
    const T* q0 = static_cast<const T*>(args.q) + token0 * args.q_stride + head * kHeadDim;
    const T* q1 = static_cast<const T*>(args.q) + token1 * args.q_stride + head * kHeadDim;
#pragma unroll
    for (int s = 0; s < kSteps; s++) {
      q[s][0] = *reinterpret_cast<const uint32_t*>(q0 + 16 * s + 2 * t);
      q[s][1] = *reinterpret_cast<const uint32_t*>(q1 + 16 * s + 2 * t);
      q[s][2] = *reinterpret_cast<const uint32_t*>(q0 + 16 * s + 2 * t + 8);
      q[s][3] = *reinterpret_cast<const uint32_t*>(q1 + 16 * s + 2 * t + 8);
    }
  }

  const float scale = args.scale * 1.4426950408889634F;  // log2 e: the softmax works in powers of two
  float largest[2] = {-INFINITY, -INFINITY};
  float sum[2] = {0, 0};
  float out[kOutColumns][4] = {};
  for (int step = 0; step < steps; step++) {
    T* const keys = buffers + step % 2 * 2 * kBuffer;
    T* const values = keys + kBuffer;
    device::wait_async_copies<0>();
    __syncthreads();  // this tile has arrived, and the other buffer is no longer read
    if (step + 1 < steps) {
      T* const next = buffers + (step + 1) % 2 * 2 * kBuffer;
      load_tile<T, Kv, kHeadDim>(args, block_table, kv_head, (step + 1) * kKeyTile, end, next, next + kBuffer);
    }

    float score[kColumns][4] = {};
#pragma unroll
    for (int s = 0; s < kSteps; s++) {
#pragma unroll
      for (int pair = 0; pair < kColumns / 2; pair++) {
        uint32_t b[4];
        const int key_row = 16 * pair + lane / 16 * 8 + lane % 8;
        device::load_matrices(b, device::shared_address(keys) + swizzled<kHeadDim>(key_row, 2 * s + lane / 8 % 2));
        device::mma_m16n8k16<T>(score[2 * pair], q[s][0], q[s][1], q[s][2], q[s][3], b[0], b[1]);
        device::mma_m16n8k16<T>(score[2 * pair + 1], q[s][0], q[s][1], q[s][2], q[s][3], b[2], b[3]);
      }
    }

    // A query sees the positions up to its own.
    const int position = step * kKeyTile + 2 * t;
    const bool masked = (step + 1) * kKeyTile > start + first + warp * 16 + 1;
    float shrink[2];
#pragma unroll
    for (int r = 0; r < 2; r++) {
      const int own = start + (r == 0 ? query0 : query1);
      float best = largest[r];
#pragma unroll
      for (int c = 0; c < kColumns; c++) {
#pragma unroll
        for (int i = 0; i < 2; i++) {
          float& s = score[c][2 * r + i];
          s = masked && position + 8 * c + i > own ? -INFINITY : s * scale;
          best = fmaxf(best, s);
        }
      }
      best = fmaxf(best, __shfl_xor_sync(device::kFullWarp, best, 1));
      best = fmaxf(best, __shfl_xor_sync(device::kFullWarp, best, 2));
      shrink[r] = exp2f(largest[r] - best);  // position 0 is never masked, so `best` is finite
      largest[r] = best;
      float added = 0;
#pragma unroll
      for (int c = 0; c < kColumns; c++) {
#pragma unroll
        for (int i = 0; i < 2; i++) {
          float& s = score[c][2 * r + i];
          s = exp2f(s - best);
          added += s;
        }
      }
      sum[r] = sum[r] * shrink[r] + added;
    }
#pragma unroll
    for (int c = 0; c < kOutColumns; c++) {
      out[c][0] *= shrink[0];
      out[c][1] *= shrink[0];
      out[c][2] *= shrink[1];
      out[c][3] *= shrink[1];
    }

#pragma unroll
    for (int s = 0; s < kKeyTile / 16; s++) {
      const uint32_t a0 = device::pack<T>(score[2 * s][0], score[2 * s][1]);
      const uint32_t a1 = device::pack<T>(score[2 * s][2], score[2 * s][3]);
      const uint32_t a2 = device::pack<T>(score[2 * s + 1][0], score[2 * s + 1][1]);
      const uint32_t a3 = device::pack<T>(score[2 * s + 1][2], score[2 * s + 1][3]);
#pragma unroll
      for (int pair = 0; pair < kOutColumns / 2; pair++) {
        uint32_t b[4];
        const int value_row = 16 * s + lane / 8 % 2 * 8 + lane % 8;
        device::load_matrices_transposed(
            b, device::shared_address(values) + swizzled<kHeadDim>(value_row, 2 * pair + lane / 16));
        device::mma_m16n8k16<T>(out[2 * pair], a0, a1, a2, a3, b[0], b[1]);
        device::mma_m16n8k16<T>(out[2 * pair + 1], a0, a1, a2, a3, b[2], b[3]);
      }
    }
  }

#pragma unroll
  for (int r = 0; r < 2; r++) {
    sum[r] += __shfl_xor_sync(device::kFullWarp, sum[r], 1);
    sum[r] += __shfl_xor_sync(device::kFullWarp, sum[r], 2);
    const int query = r == 0 ? query0 : query1;
    if (query >= count) continue;
    const float factor = 1.0F / sum[r];
    T* target = static_cast<T*>(args.out) +
                (static_cast<int64_t>(args.first_tokens[row] + query) * args.heads + head) * kHeadDim;
#pragma unroll
    for (int c = 0; c < kOutColumns; c++) {
      *reinterpret_cast<uint32_t*>(target + 8 * c + 2 * t) =
          device::pack<T>(out[c][2 * r] * factor, out[c][2 * r + 1] * factor);
    }
  }
}

template <class T, class Kv, int kHeadDim>
void launch(const PrefillAttentionArgs& args, cudaStream_t stream) {
  constexpr int kSharedBytes = 4 * kKeyTile * kHeadDim * static_cast<int>(sizeof(T));
  LORIKEET_CHECK_CUDA(cudaFuncSetAttribute(prefill_attention<T, Kv, kHeadDim>,
                                           cudaFuncAttributeMaxDynamicSharedMemorySize, kSharedBytes));
  device::launch_overlapped(prefill_attention<T, Kv, kHeadDim>, dim3(args.heads, args.tiles), kThreads, kSharedBytes,
                            stream, args);
}

}  // namespace

void prefill_attention_cuda(const PrefillAttentionArgs& args, const Stream& stream) {
  CHECK(args.cache.head_dim == 64 || args.cache.head_dim == 128) << "head size " << args.cache.head_dim;
  CHECK_EQ(args.heads % args.cache.kv_heads, 0);
  CHECK_EQ(args.cache.block_size & (args.cache.block_size - 1), 0);
  if (args.tiles == 0) return;
  with_activation_type(args.dtype, [&](auto element) {
    with_kv_type(args.cache.dtype, [&](auto kv_element) {
      using T = typename decltype(element)::type;
      using Kv = typename decltype(kv_element)::type;
      if (args.cache.head_dim == 128) {
        launch<T, Kv, 128>(args, stream.handle());
      } else {
        launch<T, Kv, 64>(args, stream.handle());
      }
    });
  });
}

}  // namespace lorikeet::kernels
