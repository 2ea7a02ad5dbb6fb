// y = f * (y + scale * B v), and SiLU-mul. Included by lora_cuda.cu.
//
// Tokens are the rows of the tensor cores' product, outputs its columns. A warp makes one output tile. v stays a float:
// it enters as the sum of two tf32 numbers, B as one, which holds fp16 and bf16 exactly.
#pragma once

#include "kernels/async_copy.cuh"
#include "kernels/device_math.cuh"
#include "kernels/done_counter.cuh"
#include "kernels/lora_cuda.h"
#include "kernels/lora_layout.h"
#include "kernels/lora_product.cuh"

namespace lorikeet::kernels::lora {

inline constexpr int kExpandWarps = 4;
inline constexpr int kExpandThreads = kExpandWarps * device::kWarpSize;
inline constexpr int kStagedTiles = 8;  // of ranks in shared memory at a time
inline constexpr int kStagedRanks = kStagedTiles * kRankTile;
inline constexpr int kStagedStride = kStagedRanks + 8;  // rows g = 0..3 in different banks
inline constexpr int kLaneOutputs = 8;

struct ExpandParams {
  const DeviceLora* entries;  // of the first projection
  int32_t slot_stride;
  const LoraCounts* counts;
  const LoraTile* tiles;
  const int32_t* order;
  const float* v;  // as in ShrinkParams
  int64_t part_stride;
  int32_t rank_stride;
  int32_t parts;
  int32_t projections;
  int32_t outputs[kMaxFusedLora];
  int32_t columns[kMaxFusedLora];      // where a projection's outputs begin in y
  int32_t first_block[kMaxFusedLora];  // of kExpandWarps output tiles; with SiLU of the pair
  int32_t blocks;
  void* y;
  int64_t y_stride;
  void* silu_out;
  int64_t silu_stride;
  bool add;
  uint32_t* done;  // or null
  bool vectors;    // eight neighbouring outputs of y may be one access
};

// Eight neighbouring elements of a row as they are stored.
template <class Y>
struct Octet {
  uint32_t words[2 * sizeof(Y)] = {};

  __device__ __forceinline__ float get(int i) const {
    if constexpr (sizeof(Y) == 4) {
      return __uint_as_float(words[i]);
    } else {
      const float2 pair = device::unpack<Y>(words[i / 2]);
      return i % 2 == 0 ? pair.x : pair.y;
    }
  }
  __device__ __forceinline__ void set(int i, float value) {
    if constexpr (sizeof(Y) == 4) {
      words[i] = __float_as_uint(value);
    } else {
      const uint32_t bits = device::pack<Y>(value, 0.0F) & 0xffffU;
      words[i / 2] = i % 2 == 0 ? (words[i / 2] & 0xffff0000U) | bits : (words[i / 2] & 0xffffU) | bits << 16;
    }
  }
  __device__ __forceinline__ void load(const Y* from, int count, bool vector) {
    if (vector && count >= kLaneOutputs) {
#pragma unroll
      for (int i = 0; i < static_cast<int>(sizeof(Y)) / 2; i++) {
        const uint4 four = reinterpret_cast<const uint4*>(from)[i];
        words[4 * i] = four.x;
        words[4 * i + 1] = four.y;
        words[4 * i + 2] = four.z;
        words[4 * i + 3] = four.w;
      }
      return;
    }
#pragma unroll
    for (int i = 0; i < kLaneOutputs; i++) {
      if (i < count) set(i, device::to_float(from[i]));
    }
  }
  __device__ __forceinline__ void store(Y* to, int count, bool vector) const {
    if (vector && count >= kLaneOutputs) {
#pragma unroll
      for (int i = 0; i < static_cast<int>(sizeof(Y)) / 2; i++) {
        reinterpret_cast<uint4*>(to)[i] =
            make_uint4(words[4 * i], words[4 * i + 1], words[4 * i + 2], words[4 * i + 3]);
      }
      return;
    }
#pragma unroll
    for (int i = 0; i < kLaneOutputs; i++) {
      if (i < count) to[i] = device::from_float<Y>(get(i));
    }
  }
};

// Blocks of a processor, so that registers suffice.
constexpr int expand_blocks(int subtiles) {
  return subtiles == 1 ? 4 : 3;
}

// T: of the adapters; Y: of y; kSubtiles: 16 rows each. With kSilu the first half of the warps make gates, the second
// half the same outputs of up.
template <class T, class Y, int kSubtiles, bool kSilu>
__global__ void __launch_bounds__(kExpandThreads, expand_blocks(kSubtiles))
    expand(const __grid_constant__ ExpandParams p) {
  constexpr int kRows = 16 * kSubtiles;
  constexpr int kParts = kSilu ? 2 : 1;  // projections of a block
  constexpr int kTilesOfPart = kExpandWarps / kParts;
  __shared__ float v[kParts][kRows][kStagedStride];
  __shared__ float made_ups[kSilu ? kTilesOfPart : 1][kSilu ? kRows : 1][kOutputTile];

  device::allow_next_kernel();
  const int warp = threadIdx.x / device::kWarpSize;
  const int lane = threadIdx.x % device::kWarpSize;
  const int g = lane / 4;
  const int t = lane % 4;
  // Neighbouring items, so that most take the tile of the one before, whose v is in shared memory.
  const int64_t items = static_cast<int64_t>(kSilu ? p.counts->tiles : p.counts->adapter_tiles) * p.blocks;
  const auto first_item = static_cast<unsigned>(items * blockIdx.x / gridDim.x);
  int left = static_cast<int>(items * (blockIdx.x + 1) / gridDim.x - first_item);
  int tile_index = static_cast<int>(first_item / p.blocks);
  int block = static_cast<int>(first_item - tile_index * p.blocks);
  int staged = -1;  // the tile and projection whose v is in shared memory
  bool waited = false;

  for (; left > 0; left--, block++) {
    if (block == p.blocks) {
      block = 0;
      tile_index++;
    }
    const LoraTile tile = p.tiles[tile_index];
    int projection = warp / kTilesOfPart;
    if constexpr (!kSilu) {
      projection = 0;
      while (projection + 1 < p.projections && block >= p.first_block[projection + 1]) projection++;
    }
    DeviceLora entry;
    int ranks[kParts] = {};  // of the block's projections
    if (tile.slot >= 0) {
      const DeviceLora* of_slot = p.entries + static_cast<int64_t>(tile.slot) * p.slot_stride;
      entry = of_slot[projection];
#pragma unroll
      for (int i = 0; i < kParts; i++) ranks[i] = kSilu ? of_slot[i].rank : entry.rank;
    }
    const int most_tiles = rank_tiles(max(ranks[0], ranks[kParts - 1]));
    if (!kSilu && p.add && entry.rank == 0) continue;
    const int output_tile = (block - (kSilu ? 0 : p.first_block[projection])) * kTilesOfPart + warp % kTilesOfPart;
    const int first_output = output_tile * kOutputTile + kLaneOutputs * t;  // of this lane
    const int outputs = p.outputs[projection] - first_output;               // 8 or fewer, or none, are this lane's
    const int tiles = output_tile * kOutputTile < p.outputs[projection] ? rank_tiles(entry.rank) : 0;
    const uint4* b =
        static_cast<const uint4*>(entry.b) + static_cast<int64_t>(output_tile) * tiles * device::kWarpSize + lane;
    uint4 w[kStagedTiles];
    auto load_weights = [&](int first) {
#pragma unroll
      for (int j = 0; j < kStagedTiles; j++) {
        if (first + j < tiles) w[j] = __ldg(b + (first + j) * device::kWarpSize);
      }
    };
    load_weights(0);  // nobody's output: on its way before the kernel in front has ended
    if (left > 1 && (output_tile + kTilesOfPart) * kOutputTile < p.outputs[projection] && lane % 8 == 0) {
      for (int j = 0; j < tiles; j++) device::prefetch_to_l2(b + (kTilesOfPart * tiles + j) * device::kWarpSize);
    }
    Y* rows[2 * kSubtiles];
#pragma unroll
    for (int i = 0; i < 2 * kSubtiles; i++) {
      const int row = g + 8 * i;
      rows[i] = row < tile.count && outputs > 0 ? static_cast<Y*>(p.y) + p.order[tile.first + row] * p.y_stride +
                                                      p.columns[projection] + first_output
                                                : nullptr;
    }
    if (!waited) device::wait_for_previous_kernel();
    waited = true;
    Octet<Y> base[2 * kSubtiles];
    if (kSilu || p.add) {
#pragma unroll
      for (int i = 0; i < 2 * kSubtiles; i++) {
        if (rows[i] != nullptr) base[i].load(rows[i], outputs, p.vectors);
      }
    }

    float sums[kSubtiles][4][4] = {};
    const int to_stage = kSilu ? tile_index : tile_index * kMaxFusedLora + projection;
    const bool kept = to_stage == staged && most_tiles <= kStagedTiles;
    staged = to_stage;
    for (int first = 0; first < most_tiles; first += kStagedTiles) {
      // Rows beyond the tile's are left as they are: the tensor cores keep rows apart.
      const int shift = 32 - __clz(min(kStagedTiles, most_tiles - first) * kRankTile - 1);
      if (!kept) {
        __syncthreads();  // v is no longer read
#pragma unroll
        for (int i = 0; i < kParts; i++) {
          const int projection_of_part = kSilu ? i : projection;
          const float* from =
              p.v + (static_cast<int64_t>(tile.first) * p.projections + projection_of_part) * p.rank_stride;
          for (int e = threadIdx.x; e < tile.count << shift; e += kExpandThreads) {
            const int row = e >> shift;
            const int rank = e - (row << shift);
            const bool exists = first * kRankTile + rank < ranks[i];
            v[i][row][rank] =
                sum_parts(from + static_cast<int64_t>(row) * p.projections * p.rank_stride + first * kRankTile + rank,
                          p.part_stride, exists ? p.parts : 0);
          }
        }
        __syncthreads();
      }
#pragma unroll
      for (int j = 0; j < kStagedTiles; j++) {
        if (first + j >= tiles) break;
#pragma unroll
        for (int s = 0; s < kSubtiles; s++) {
          if (s > 0 && tile.count <= 16 * s) break;
          const float* of_row = &v[kSilu ? projection : 0][16 * s + g][j * kRankTile + 2 * t];
          const float2 low = *reinterpret_cast<const float2*>(of_row);
          const float2 high = *reinterpret_cast<const float2*>(of_row + 8 * kStagedStride);
          add_rank_tile<T>(sums[s], split_rank_tile(low, high), w[j]);
        }
      }
      load_weights(first + kStagedTiles);
    }

    // The value of output first_output + o of row g + 8 i.
    auto finish = [&](int i, int o) {
      const float sum = sums[i / 2][o / 2][i % 2 * 2 + o % 2];
      if (!kSilu && !p.add) return entry.scale * sum;
      const float value = completed(base[i].get(o), entry.scale, sum);
      return entry.dora_factor != nullptr && o < outputs ? value * entry.dora_factor[first_output + o] : value;
    };
    if constexpr (!kSilu) {
#pragma unroll
      for (int i = 0; i < 2 * kSubtiles; i++) {
        if (rows[i] == nullptr) continue;
        Octet<Y> result;
#pragma unroll
        for (int o = 0; o < kLaneOutputs; o++) result.set(o, finish(i, o));
        result.store(rows[i], outputs, p.vectors);
      }
    } else {
      float* ups = &made_ups[warp % kTilesOfPart][g][kLaneOutputs * t];
      if (projection == 1) {
#pragma unroll
        for (int i = 0; i < 2 * kSubtiles; i++) {
          if (rows[i] == nullptr) continue;
#pragma unroll
          for (int o = 0; o < kLaneOutputs; o++) ups[8 * i * kOutputTile + o] = finish(i, o);
        }
      }
      __syncthreads();
      if (projection == 0) {
#pragma unroll
        for (int i = 0; i < 2 * kSubtiles; i++) {
          if (rows[i] == nullptr) continue;
          Octet<Y> result;
#pragma unroll
          for (int o = 0; o < kLaneOutputs; o++) {
            const float gate = finish(i, o);
            result.set(o, gate / (1.0F + __expf(-gate)) * ups[8 * i * kOutputTile + o]);
          }
          const int row = p.order[tile.first + g + 8 * i];
          result.store(static_cast<Y*>(p.silu_out) + row * p.silu_stride + first_output, outputs, p.vectors);
        }
      }
      __syncthreads();
    }
  }
  if (!waited) device::wait_for_previous_kernel();  // what follows may rely on all that came before
  device::signal_done(p.done);
}

}  // namespace lorikeet::kernels::lora
