// The same product as kernels/int4/stream/int4_stream.cuh by the matrix steps of Hopper's warpgroups, which run beside
// the warps' own instructions. Included by the .cu files that instantiate it.
//
// Each of the 16 warps that compute has one of a round's tiles: 16 of the 64 rows of its warpgroup's steps, for all
// tokens. It decodes the tile's weights into registers, 32 inputs while the steps of the 32 before them run. Weights
// and x come by tensor copies that one lane requests. What a unit's steps have summed is scaled and added in registers;
// a warpgroup without a tile rests.
#pragma once

#include "kernels/cuda/wgmma.cuh"
#include "kernels/int4/base/tensor_copies.cuh"
#include "kernels/int4/stream/parts.cuh"

namespace lorikeet::kernels::int4 {

inline constexpr int kGroupWarps = 4;
inline constexpr int kGroupStreamWarps = 16;  // that compute
// A thread of another group requests what these consume; the rest of it is there to give its registers away.
inline constexpr int kGroupStreamThreads = (kGroupStreamWarps + kGroupWarps) * device::kWarpSize;
// Of a thread: at launch, of those that compute, and of the group that requests. With few columns the next kernel's
// blocks find room beside.
template <int kColumns>
struct GroupRegisters {
  static constexpr bool kFew = kColumns <= 48;
  static constexpr int kAtLaunch = kFew ? 88 : 96;
  static constexpr int kComputing = kFew ? 104 : 112;
  static constexpr int kFilling = kFew ? 24 : 32;
  static_assert(kGroupStreamWarps * kComputing + kGroupWarps * kFilling <=
                (kGroupStreamWarps + kGroupWarps) * kAtLaunch);
};

constexpr int group_stream_x_bytes(int columns) {
  return columns * kUnitInputs * 2;
}

template <int kColumns>
struct GroupTiling {
  static constexpr int kWarps = kGroupStreamWarps;
  static constexpr int kRowTiles = 1;
  static constexpr int kColTiles = kColumns / 8;
  static constexpr int kAllColTiles = kColTiles;
};

struct GroupStreamMaps {
  CUtensorMap x;
  CUtensorMap weight;        // a round's tiles
  CUtensorMap fewer_weight;  // one tile less
};

#if defined(__CUDA_ARCH_FEAT_SM90_ALL)
// sums += steps of sub-block j of the warpgroup's units, or = for the first of a scale. x: operand of the stage's first
// 16 inputs.
template <class T, class Format, int kColumns>
__device__ __forceinline__ void start_sub_block(const uint4 (&words)[2], const Zeros<T>& zeros, uint64_t x, int j,
                                                float (&sums)[kColumns / 2]) {
  constexpr int kScales = kUnitInputs / Format::kScaleBlock;
  uint32_t word0 = j % 2 == 0 ? words[j / 2].x : words[j / 2].z;
  uint32_t word1 = j % 2 == 0 ? words[j / 2].y : words[j / 2].w;
  asm volatile("" : "+r"(word0), "+r"(word1));  // not decoded before the steps in front have started
  uint32_t a[2][4];
  decode_sub_block<T>(word0, word1, zeros, a);
  device::warpgroup_fence();
#pragma unroll
  for (int s = 0; s < 2; s++) {
    const uint32_t step = j / 2 * (kColumns * kBoxInputs * 2) + (j % 2 * 2 + s) * 32;
    device::multiply_async<T>(sums, a[s], device::operand_behind(x, step), s > 0 || (kScales == 1 && j > 0));
  }
  device::warpgroup_commit();
}

// A warp's unit in a stage: what is read of it ahead, while the steps of the unit in front of it run.
struct UnitAhead {
  const unsigned char* unit;
  uint32_t x;  // of the stage
  uint4 words[2];

  __device__ __forceinline__ void read(const unsigned char* from, uint32_t stage_x, int lane) {
    unit = from;
    x = stage_x;
    const uint32_t address = device::shared_address(unit) + lane * 16;
    words[0] = load_shared_16(address);
    words[1] = load_shared_16(address + 512);
  }
};

// y += one unit of the warp's tile times x. read_ahead() overwrites `at` with the next unit's as soon as this one's is
// in registers.
template <class T, class Format, int kColumns, class ReadAhead>
__device__ __forceinline__ void add_group_step(UnitAhead& at, float (&y)[1][kColumns / 8][4], int lane,
                                               ReadAhead&& read_ahead) {
  constexpr int kScales = kUnitInputs / Format::kScaleBlock;
  constexpr int kSubBlocks = kUnitInputs / kSubBlock;
  const int g = lane / 4;
  // The same in all lanes, which the compiler learns by the exchange: descriptors are uniform registers.
  const uint64_t operand = device::swizzled_operand(__shfl_sync(device::kFullWarp, at.x, 0));
  const uint32_t first_zeros = load_zero_pair<Format>(at.unit, 0, g);
  float sums[kColumns / 2];
#pragma unroll
  for (int j = 0; j < kSubBlocks; j++) {
    const uint32_t zeros = kScales == 1 || j == 0 ? first_zeros : load_zero_pair<Format>(at.unit, j, g);
    start_sub_block<T, Format, kColumns>(at.words, zeros_of<T, Format>(zeros), operand, j, sums);
    if (kScales == 1 && j + 1 < kSubBlocks) {
      device::warpgroup_wait<1>();
      continue;
    }
    const float2 scale = load_scales(at.unit, kScales == 1 ? 0 : j, g);
    if (j + 1 == kSubBlocks) read_ahead();
    device::warpgroup_wait<0>();
    device::fence_sums(sums);
#pragma unroll
    for (int c = 0; c < kColumns / 8; c++) {
      const float sum[4] = {sums[c * 4], sums[c * 4 + 1], sums[c * 4 + 2], sums[c * 4 + 3]};
      add_scaled(y[0][c], scale, sum);
    }
  }
}

// By one thread. Fills the ring: step by step of round by round.
template <class Format, int kColumns>
__device__ __forceinline__ void fill_group_stages(const StreamParams& p, const GroupStreamMaps& maps, uint32_t base,
                                                  uint32_t full, uint32_t empty, int first_tile, int tiles,
                                                  int first_unit, int end_unit) {
  const int steps = (end_unit - first_unit) * ((tiles + p.round_tiles - 1) / p.round_tiles);
  int round = 0;
  int unit = first_unit;
  auto request_weights = [&](int stage) {
    const bool all = tiles - round >= p.round_tiles;
    const uint32_t barrier = full + stage * 8;
    device::barrier_expect(barrier, (p.round_tiles - (all ? 0 : 1)) * Format::kBytes);
    tensor_copy(base + stage * p.stage_bytes, all ? &maps.weight : &maps.fewer_weight,
                unit * (Format::kBytes / kWeightElement), first_tile + round, barrier);
    if (++unit == end_unit) {
      unit = first_unit;
      round += p.round_tiles;
    }
  };
  int x_unit = first_unit;
  auto request_x = [&](int stage) {
    const uint32_t to = base + stage * p.stage_bytes + p.stage_x_offset;
    const uint32_t barrier = full + stage * 8;
    device::barrier_expect(barrier, group_stream_x_bytes(kColumns));
    tensor_copy(to, &maps.x, x_unit * kUnitInputs, 0, barrier);
    tensor_copy(to + kColumns * kBoxInputs * 2, &maps.x, x_unit * kUnitInputs + kBoxInputs, 0, barrier);
    if (++x_unit == end_unit) x_unit = first_unit;
  };
  // weights are read-only: they may be read before the kernel in front has ended.
  const int early = min(p.stages, steps);
#pragma unroll 1
  for (int i = 0; i < early; i++) request_weights(i);
  device::wait_for_previous_kernel();
#pragma unroll 1
  for (int i = 0; i < early; i++) request_x(i);
  int stage = 0;
  uint32_t phase = 0;
#pragma unroll 1
  for (int i = early; i < steps; i++) {
    device::barrier_wait(empty + stage * 8, phase);
    request_weights(stage);
    request_x(stage);
    if (++stage == p.stages) {
      stage = 0;
      phase ^= 1;
    }
  }
}
#endif

//   grid     shape.blocks, alone or in clusters, at most one CTA a multiprocessor; 640 threads, 88 or 96 registers at launch:
//            GroupRegisters says how many those have that compute and those that request
//   shared   StreamSizes: shape.depth stages of weights and x, sums of a round
//   device   9.0a (wgmma, tensor copies)
//   waits    for the kernel in front, with weights already requested
//   floor    with stream() a step of 64 rows reaches 50 % of its floor; 1.65 to 2.03 times as fast as cuBLASLt fp16 there
template <class T, class Format, int kColumns>
__global__ void __maxnreg__((GroupRegisters<kColumns>::kAtLaunch))
    stream_groups(const __grid_constant__ StreamParams p, const __grid_constant__ GroupStreamMaps maps) {
#if defined(__CUDA_ARCH_FEAT_SM90_ALL)
  using Tiling = GroupTiling<kColumns>;
  extern __shared__ unsigned char unaligned_shared[];
  __shared__ __align__(8) uint64_t barriers[2 * kMostStages];  // its presence tells that the kernel was compiled
  const uint32_t unaligned = device::shared_address(unaligned_shared);
  const uint32_t base = (unaligned + kBoxAlignment - 1) / kBoxAlignment * kBoxAlignment;
  unsigned char* shared = unaligned_shared + (base - unaligned);
  uint32_t full = device::shared_address(barriers);
  asm("" : "+r"(full));  // lest it be computed again at every use
  const uint32_t empty = full + kMostStages * 8;
  const int warp = threadIdx.x / device::kWarpSize;
  const int lane = threadIdx.x % device::kWarpSize;
  const bool divided = p.cluster > 1;
  const int rank = static_cast<int>(blockIdx.x) % p.cluster;
  const int group = static_cast<int>(blockIdx.x) / p.cluster;
  const int groups = static_cast<int>(gridDim.x) / p.cluster;
  const int first_tile = static_cast<int64_t>(p.tiles) * group / groups;
  const int tiles = static_cast<int64_t>(p.tiles) * (group + 1) / groups - first_tile;
  const int first_part = divided ? rank : 0;
  const int first_unit = part_begin(p.units, first_part);
  const int end_unit = part_begin(p.units, divided ? rank + 1 : kPartsOfK);
  if (threadIdx.x == 0) {
    for (int i = 0; i < p.stages; i++) {
      device::barrier_init(full + i * 8, 2);  // weights, x
      device::barrier_init(empty + i * 8, kGroupStreamWarps);
    }
    device::fence_barrier_init();
  }
  __syncthreads();
  device::allow_next_kernel();
  // A neighbour must have started before it is sent sums: waited for before they are sent.
  if (divided) device::cluster_arrive_relaxed();
  if (warp >= kGroupStreamWarps) {
    device::give_registers<GroupRegisters<kColumns>::kFilling>();
    if (threadIdx.x == kGroupStreamWarps * device::kWarpSize) {
      fill_group_stages<Format, kColumns>(p, maps, base, full, empty, first_tile, tiles, first_unit, end_unit);
    }
    __syncwarp();
    if (divided) {
      device::cluster_wait();
      device::cluster_arrive_relaxed();
    }
    return;
  }

  device::take_registers<GroupRegisters<kColumns>::kComputing>();
  auto* sums = reinterpret_cast<float4*>(shared + p.sums_offset);
  float4* kept = sums + warp * (Tiling::kColTiles * 32) + lane;
  int stage = 0;
  uint32_t phase = 0;
  for (int round = 0; round < tiles; round += p.round_tiles) {
    const int round_tiles = min(p.round_tiles, tiles - round);
    const bool computes = warp / kGroupWarps * kGroupWarps < round_tiles;
    // Warps without a tile of their own in a group that has some repeat the last; their results are not used.
    const int my_tiles = warp < round_tiles ? 1 : 0;
    const unsigned char* weights = shared + min(warp, round_tiles - 1) * Format::kBytes;
    WarpSums<Tiling> y = {};
    bool first = true;
    int part = first_part;
    int part_end = part_begin(p.units, part + 1);
    while (part_end <= first_unit) part_end = part_begin(p.units, ++part + 1);  // of a short k some parts are empty
    UnitAhead at;
    const auto read_ahead = [&] {
      device::barrier_wait(full + stage * 8, phase);
      if (!computes) return;
      at.read(weights + stage * p.stage_bytes, base + stage * p.stage_bytes + p.stage_x_offset, lane);
    };
    if (first_unit < end_unit) read_ahead();
    for (int unit = first_unit; unit < end_unit; unit++) {
      const uint32_t done = empty + stage * 8;
      if (++stage == p.stages) {
        stage = 0;
        phase ^= 1;
      }
      const auto read_next = [&] {
        if (unit + 1 < end_unit) read_ahead();
      };
      if (computes) {
        add_group_step<T, Format, kColumns>(at, y, lane, read_next);
        __syncwarp();
        if (lane == 0) device::barrier_arrive(done);
      } else {
        if (lane == 0) device::barrier_arrive(done);
        read_next();
      }
      if (divided || unit + 1 < part_end) continue;
      end_part<Tiling>(y, kept, first, my_tiles);
      first = false;
      while (part < kPartsOfK && part_end <= unit + 1) part_end = part_begin(p.units, ++part + 1);
    }
    if (!divided) {
      store_kept<T, Tiling>(p, kept, first_tile + round + warp, my_tiles, 0, lane);
      continue;
    }
    device::cluster_wait();
    send_part<Tiling>(y, base + p.sums_offset, rank, warp, my_tiles, 0, lane);
    __syncwarp();
    device::cluster_arrive();
    device::cluster_wait();
    add_parts<T, Tiling>(p, sums, rank, first_tile, tiles, warp, lane);
  }
#endif
}

}  // namespace lorikeet::kernels::int4
