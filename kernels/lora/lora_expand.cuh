// y = f * (y + scale * B v), and SiLU-mul. Included by lora_cuda.cu.
//
// Tokens are the rows of the tensor cores' product, outputs its columns. v stays a float: it enters as the sum of two
// tf32 numbers, B as one, which holds fp16 and bf16 exactly.
//
// Little is computed with every byte of B and y, so all that a warp will read of them is on its way early. A block has
// a chunk: one tile of rows, one projection (with SiLU the pair) and a range of output tiles, cut so that the blocks of
// the launch have one each. It puts v into shared memory once; its warps take the output tiles in turns, each through a
// ring in shared memory of its own, of which a lane reads what it has itself copied there: no warp waits for another.
#pragma once

#include "kernels/cuda/async_copy.cuh"
#include "kernels/cuda/device_math.cuh"
#include "kernels/cuda/done_counter.cuh"
#include "kernels/lora/lora_cuda.h"
#include "kernels/lora/lora_layout.h"
#include "kernels/lora/lora_octet.cuh"
#include "kernels/lora/lora_product.cuh"

namespace lorikeet::kernels::lora {

inline constexpr int kExpandWarps = 4;
inline constexpr int kExpandThreads = kExpandWarps * device::kWarpSize;
inline constexpr int kStagedTiles = 8;  // of ranks in shared memory at a time
inline constexpr int kStagedRanks = kStagedTiles * kRankTile;
inline constexpr int kStepTiles = 2;  // of ranks in one step of a ring

// Where a rank's v is in the row in shared memory: so that a tile of ranks of rows g = 0..3 is in different banks.
__device__ __forceinline__ int staged_at(int row, int rank) {
  return rank ^ row % 4 * kRankTile;
}

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
  int32_t columns[kMaxFusedLora];       // where a projection's outputs begin in y
  int32_t output_tiles[kMaxFusedLora];  // of what chunks are cut from: projections, with SiLU the pair; then 0
  void* y;
  int64_t y_stride;
  void* silu_out;
  int64_t silu_stride;
  bool add;
  uint32_t* done;  // or null
  bool vectors;    // eight neighbouring outputs of y may be one access
};

// What a warp's ring holds: kDepth steps of up to kStepTiles rank tiles of B, and with the last of an output tile y.
template <class Y, bool kSilu>
struct ExpandRing {
  static constexpr int kParts = kSilu ? 2 : 1;  // projections of a chunk
  static constexpr int kDepth = kSilu ? 3 : 4;
  static constexpr int kWeightVectors = kParts * kStepTiles;  // of 16 bytes, each lane's
  static constexpr int kStepVectors = kWeightVectors + kParts * 2 * Octet<Y>::kVectors;
  static constexpr int kStagedFloats = kParts * LoraRowPlan::kTileRows * kStagedRanks;
  static constexpr int kSharedBytes =
      kStagedFloats * 4 + kExpandWarps * kDepth * kStepVectors * device::kWarpSize * static_cast<int>(sizeof(uint4));
  static constexpr int kBlocks = 4;  // of a multiprocessor
};

// How the output tiles of every tile of rows are cut.
struct ExpandCut {
  int length;                 // output tiles of a chunk
  int chunks[kMaxFusedLora];  // of a projection
  int all;                    // of a tile of rows
};

__device__ __forceinline__ ExpandCut cut_outputs(const ExpandParams& p, int row_tiles, int blocks) {
  constexpr int kTries = 8;
  const auto divide_up = [](int a, int b) { return static_cast<int>((a + b - 1U) / static_cast<unsigned>(b)); };
  ExpandCut cut;
  const auto cut_to = [&](int length) {
    cut.length = length;
    cut.all = 0;
#pragma unroll
    for (int i = 0; i < kMaxFusedLora; i++) {
      cut.chunks[i] = divide_up(p.output_tiles[i], length);
      cut.all += cut.chunks[i];
    }
    return cut.all * row_tiles <= blocks;
  };
  const int in_all = row_tiles * (p.output_tiles[0] + p.output_tiles[1] + p.output_tiles[2]);
  int length = max(1, divide_up(in_all, blocks));
#pragma unroll 1
  for (int i = 0; i < kTries; i++, length += max(1, length / 16)) {
    if (cut_to(length)) return cut;
  }
  cut_to(max(1, divide_up(in_all, 4 * blocks)));  // too many ends: several shorter chunks for every block
  return cut;
}

// T: of the adapters; Y: of y. Adds B (A x) to y, for chunks of output tiles of a tile of rows.
//   grid     rows * output tiles / warps, up to four CTAs a multiprocessor; kExpandThreads threads, 122 or 128 registers
//   shared   ExpandRing::kSharedBytes: A x of a tile of rows, a ring of B and y per warp
//   device   8.0
//   waits    for the kernel in front, with the first weights already requested
//   floor    with shrink: 32 rows of 32 adapters of rank 16 cost 3.0 ms a step, their floor is 0.96 (bench/RESULTS.md)
template <class T, class Y, bool kSilu>
__global__ void __launch_bounds__(kExpandThreads, ExpandRing<Y, kSilu>::kBlocks)
    expand(const __grid_constant__ ExpandParams p) {
  using Ring = ExpandRing<Y, kSilu>;
  constexpr int kParts = Ring::kParts;
  constexpr int kRows = LoraRowPlan::kTileRows;
  constexpr int kVectors = Octet<Y>::kVectors;
  extern __shared__ uint4 shared[];
  auto* v = reinterpret_cast<float(*)[kRows][kStagedRanks]>(shared);  // [kParts]

  device::allow_next_kernel();
  const int warp = threadIdx.x / device::kWarpSize;
  const int lane = threadIdx.x % device::kWarpSize;
  const int g = lane / 4;
  const int t = lane % 4;
  uint4* ring = shared + Ring::kStagedFloats / 4 + warp * Ring::kDepth * Ring::kStepVectors * device::kWarpSize + lane;
  const int row_tiles = kSilu ? p.counts->tiles : p.counts->adapter_tiles;
  const ExpandCut cut = cut_outputs(p, row_tiles, static_cast<int>(gridDim.x));
  bool waited = false;

  for (int chunk = blockIdx.x; chunk < row_tiles * cut.all; chunk += gridDim.x) {
    const int tile_index = chunk / cut.all;
    int in_projection = chunk - tile_index * cut.all;
    int projection = 0;
#pragma unroll
    for (int i = 0; i + 1 < kMaxFusedLora; i++) {
      if (projection < i || in_projection < cut.chunks[i]) continue;
      in_projection -= cut.chunks[i];
      projection++;
    }
    const int first_tile = in_projection * cut.length;
    const int end_tile = min(first_tile + cut.length, p.output_tiles[projection]);
    const LoraTile tile = p.tiles[tile_index];
    DeviceLora entries[kParts];
    if (tile.slot >= 0) {
      const DeviceLora* of_slot = p.entries + static_cast<int64_t>(tile.slot) * p.slot_stride + projection;
#pragma unroll
      for (int i = 0; i < kParts; i++) entries[i] = of_slot[i];
    }
    const int most_tiles = rank_tiles(max(entries[0].rank, entries[kParts - 1].rank));
    if (!kSilu && p.add && most_tiles == 0) continue;

    int rows[2];  // of this lane; -1: none
#pragma unroll
    for (int h = 0; h < 2; h++) rows[h] = g + 8 * h < tile.count ? p.order[tile.first + g + 8 * h] : -1;
    const auto y_of = [&](int part, int h, int first_output) {
      return static_cast<Y*>(p.y) + rows[h] * p.y_stride + p.columns[projection + part] + first_output;
    };
    const auto outputs_behind = [&](int first_output) { return p.outputs[projection] - first_output; };

    // A warp's steps: kStepTiles rank tiles at a time of each of its output tiles.
    struct Step {
      int tile;
      int first_rank_tile;
    };
    const auto advance = [&](Step& step) {
      step.first_rank_tile += kStepTiles;
      if (step.first_rank_tile >= most_tiles) {
        step.first_rank_tile = 0;
        step.tile += kExpandWarps;
      }
    };
    const auto ask_weights = [&](const Step& step, uint4* to) {
      if (step.tile >= end_tile) return;
#pragma unroll
      for (int i = 0; i < kParts; i++) {
        const int tiles = rank_tiles(entries[i].rank);
        const uint4* b = static_cast<const uint4*>(entries[i].b) +
                         (static_cast<int64_t>(step.tile) * tiles + step.first_rank_tile) * device::kWarpSize + lane;
#pragma unroll
        for (int j = 0; j < kStepTiles; j++) {
          if (step.first_rank_tile + j >= tiles) break;
          device::copy_async_16(device::shared_address(to + (i * kStepTiles + j) * device::kWarpSize),
                                b + j * device::kWarpSize, true);
        }
      }
    };
    const auto ask_outputs = [&](const Step& step, uint4* to) {
      if (step.tile >= end_tile || step.first_rank_tile + kStepTiles < most_tiles || !(kSilu || p.add)) return;
      const int first_output = step.tile * kOutputTile + kLaneOutputs * t;
      const int count = outputs_behind(first_output);
      if (count <= 0) return;
      to += Ring::kWeightVectors * device::kWarpSize;
#pragma unroll
      for (int i = 0; i < kParts; i++) {
#pragma unroll
        for (int h = 0; h < 2; h++, to += kVectors * device::kWarpSize) {
          if (rows[h] < 0) continue;
          const Y* from = y_of(i, h, first_output);
          if (p.vectors && count >= kLaneOutputs) {
#pragma unroll
            for (int j = 0; j < kVectors; j++) {
              device::copy_async_16(device::shared_address(to + j * device::kWarpSize),
                                    reinterpret_cast<const uint4*>(from) + j, true);
            }
          } else {
            Octet<Y> octet;
            octet.load_single(from, count);
#pragma unroll
            for (int j = 0; j < kVectors; j++) to[j * device::kWarpSize] = octet.vector(j);
          }
        }
      }
    };
    const auto slot = [&](int step) { return ring + step % Ring::kDepth * Ring::kStepVectors * device::kWarpSize; };

    Step asked{first_tile + warp, 0};
    for (int s = 0; s < Ring::kDepth - 1; s++, advance(asked)) ask_weights(asked, slot(s));  // read-only
    if (!waited) device::wait_for_previous_kernel();
    waited = true;
    asked = {first_tile + warp, 0};
    for (int s = 0; s < Ring::kDepth - 1; s++, advance(asked)) {
      ask_outputs(asked, slot(s));
      device::commit_async_copies();
    }

    const auto stage = [&](int first) {
      // Rows beyond the tile's are left as they are: the tensor cores keep rows apart.
      const int shift = 32 - __clz(min(kStagedTiles, most_tiles - first) * kRankTile - 1);
#pragma unroll
      for (int i = 0; i < kParts; i++) {
        const float* from = p.v + (static_cast<int64_t>(tile.first) * p.projections + projection + i) * p.rank_stride +
                            first * kRankTile;
        for (int e = threadIdx.x; e < tile.count << shift; e += kExpandThreads) {
          const int row = e >> shift;
          const int rank = e - (row << shift);
          const bool exists = first * kRankTile + rank < entries[i].rank;
          v[i][row][staged_at(row, rank)] =
              sum_parts(from + static_cast<int64_t>(row) * p.projections * p.rank_stride + rank, p.part_stride,
                        exists ? p.parts : 0);
        }
      }
    };

    float sums[kParts][4][4] = {};
    RankTile held[kParts][kStepTiles];
    const auto finish = [&](int part, int h, int first_output, const uint4* outputs, float(&values)[kLaneOutputs]) {
      Octet<Y> base;
      if (kSilu || p.add) {
#pragma unroll
        for (int j = 0; j < kVectors; j++) {
          base.set_vector(j, outputs[((part * 2 + h) * kVectors + j) * device::kWarpSize]);
        }
      }
#pragma unroll
      for (int i = 0; i < kLaneOutputs; i++) {
        const float sum = sums[part][i / 2][2 * h + i % 2];
        const float2 two = base.pair(i / 2);
        values[i] = kSilu || p.add ? completed(i % 2 == 0 ? two.x : two.y, entries[part].scale, sum)
                                   : entries[part].scale * sum;
      }
      const float* factor = entries[part].dora_factor;
      if (factor == nullptr || !(kSilu || p.add)) return;
#pragma unroll
      for (int i = 0; i < kLaneOutputs; i++) {
        if (i < outputs_behind(first_output)) values[i] *= factor[first_output + i];
      }
    };

    const int rounds = (end_tile - first_tile + kExpandWarps - 1) / kExpandWarps;
    const int steps = rounds * max(1, (most_tiles + kStepTiles - 1) / kStepTiles);
    Step step{first_tile + warp, 0};
    for (int s = 0; s < steps; s++, advance(step)) {
      const int staged_tile = step.first_rank_tile % kStagedTiles;
      if (most_tiles > 0 && (s == 0 || most_tiles > kStagedTiles) && staged_tile == 0) {
        __syncthreads();  // v is no longer read
        stage(step.first_rank_tile);
        __syncthreads();
      }
      ask_weights(asked, slot(s + Ring::kDepth - 1));
      ask_outputs(asked, slot(s + Ring::kDepth - 1));
      device::commit_async_copies();
      advance(asked);
      if (s == 0 || most_tiles > kStepTiles) {
#pragma unroll
        for (int i = 0; i < kParts; i++) {
#pragma unroll
          for (int j = 0; j < kStepTiles; j++) {
            const float* of_row = &v[i][g][staged_at(g, (staged_tile + j) * kRankTile) + 2 * t];
            held[i][j] = split_rank_tile(*reinterpret_cast<const float2*>(of_row),
                                         *reinterpret_cast<const float2*>(of_row + 8 * kStagedRanks));
          }
        }
      }
      device::wait_async_copies<Ring::kDepth - 1>();
      if (step.tile >= end_tile) continue;
      const uint4* from = slot(s);
#pragma unroll
      for (int i = 0; i < kParts; i++) {
#pragma unroll
        for (int j = 0; j < kStepTiles; j++) {
          if (step.first_rank_tile + j >= rank_tiles(entries[i].rank)) break;
          add_rank_tile<T>(sums[i], held[i][j], from[(i * kStepTiles + j) * device::kWarpSize]);
        }
      }
      if (step.first_rank_tile + kStepTiles < most_tiles) continue;

      const int first_output = step.tile * kOutputTile + kLaneOutputs * t;
      const uint4* outputs = from + Ring::kWeightVectors * device::kWarpSize;
#pragma unroll
      for (int h = 0; h < 2; h++) {
        if (rows[h] < 0 || outputs_behind(first_output) <= 0) continue;
        float values[kLaneOutputs];
        finish(0, h, first_output, outputs, values);
        Octet<Y> result;
        if constexpr (kSilu) {
          float ups[kLaneOutputs];
          finish(1, h, first_output, outputs, ups);
#pragma unroll
          for (int i = 0; i < kLaneOutputs; i += 4) multiply_silu<4>(values + i, ups + i);
        }
#pragma unroll
        for (int i = 0; i < kLaneOutputs; i += 2) result.set_pair(i / 2, values[i], values[i + 1]);
        Y* to = kSilu ? static_cast<Y*>(p.silu_out) + rows[h] * p.silu_stride + first_output : y_of(0, h, first_output);
        result.store(to, outputs_behind(first_output), p.vectors);
      }
#pragma unroll
      for (int i = 0; i < kParts * 16; i++) sums[i / 16][i / 4 % 4][i % 4] = 0;
    }
  }
  if (!waited) device::wait_for_previous_kernel();  // what follows may rely on all that came before
  device::signal_done(p.done);
}

}  // namespace lorikeet::kernels::lora
