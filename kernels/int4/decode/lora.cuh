// LoRA inside of the int4 product whose blocks keep x (kernels/int4/decode/int4_decode.cuh): by warps of its own, so
// that those that stream weights never wait. Included by it.
//
// A x. Slices of the inputs, as kernels/lora/lora_shrink.cuh defines them, are dealt to these warps of all blocks: each
// makes them from the x in its block's shared memory and leaves them in global memory. B (A x). The warps of every
// block wait for all slices and add them in their order. Then they make the sums of the block's tiles, with the steps
// of kernels/lora/lora_product.cuh; those that finish the outputs add these. The blocks of the product run together:
// nobody waits for a block that cannot begin.
//
// What counts is the time from x to the sums, in which every access to memory waits behind the weights. So all that
// does not depend on x is done before: the adapters' weights are read-only.
#pragma once

#include "kernels/int4/decode/slices.cuh"
#include "kernels/int4/decode/sums.cuh"

namespace lorikeet::kernels::int4 {

// Describes the tokens' adapters in shared memory. Called by one warp; a barrier must follow.
__device__ __forceinline__ void describe_tokens(const DecodeLoraParams& p, LoraShared& shared, int m) {
  const int lane = threadIdx.x % device::kWarpSize;
  const int i = lane / kMaxFusedLora;  // of the tiles of rows
  const int projection = lane % kMaxFusedLora;
  // All of the tables at once: what does not count is not used.
  const LoraCounts counts = *p.counts;
  LoraTile tile = p.tiles[min(i, p.most_tiles - 1)];
  const int order = lane < m ? p.order[lane] : 0;
  const bool exists = i < min(counts.tiles, kMostTokens) && projection < p.projections;
  DeviceLora entry;
  if (exists && tile.slot >= 0) entry = p.entries[static_cast<int64_t>(tile.slot) * p.slot_stride + projection];
  const int blocks = lora::rank_tiles(entry.rank);
  int first = 0;
  int all = 0;
#pragma unroll
  for (int j = 0; j < kMostTokens; j++) {
    const int of_tile = __shfl_sync(device::kFullWarp, blocks, j * kMaxFusedLora + projection);
    if (j < i) first += of_tile;
    all += of_tile;
  }
  uint32_t members = 0;
  for (int j = 0; j < m; j++) {
    const int token = __shfl_sync(device::kFullWarp, order, j);
    if (!exists || j < tile.first || j >= tile.first + tile.count) continue;
    members |= 1U << token;
    shared.tokens[projection][token] = {entry.dora_factor, entry.scale, entry.rank};
  }
  RankBlock* to = shared.blocks(p, projection) + first;
  for (int block = 0; block < blocks; block++) {
    to[block] = {static_cast<const unsigned char*>(entry.b) + block * lora::kBlockBytes, blocks * lora::kBlockBytes,
                 static_cast<uint16_t>(block * lora::kRankTile), static_cast<uint16_t>(members)};
  }
  const int most = __reduce_max_sync(device::kFullWarp, blocks);
  if (i == 0) shared.block_count[projection] = all;
  if (i < kMostTokens) {
    shared.groups[projection][i] = {static_cast<uint16_t>(first), static_cast<uint16_t>(blocks), members};
  }
  const int most_blocks = __reduce_max_sync(device::kFullWarp, all);
  if (lane == 0) {
    shared.most_blocks = max(1, most_blocks);
    shared.group_count = counts.adapter_tiles;
    shared.ranks = most * lora::kRankTile;
  }
}

// What the warps of LoRA do. wait_for_x returns when x is in shared memory. B v is there behind the next barrier of the
// block.
template <class T, class Wait>
__device__ __forceinline__ void prepare_lora(const DecodeLoraParams& p, const OutputParams& o,
                                             unsigned char* block_memory, LoraShared& shared, const LoraShare& share,
                                             const OwnTiles& tiles, int x_row_bytes, int m, Wait&& wait_for_x) {
  const uint32_t base = device::shared_address(block_memory);
  const int index = static_cast<int>(threadIdx.x) / device::kWarpSize;
  SliceWork<T> slices(p, share, base, index);
  if (index == kLoraWarps - 1) describe_tokens(p, shared, m);  // has the fewest slices
  lora_barrier();
  const TilesOfB b(p, o, block_memory, shared, tiles);
  b.stage_first();
  const bool gathers = tiles.count > 0;
  GatherV gather(p, shared, m, OwnProjections(p, o, tiles));
  device::wait_for_previous_kernel();
  wait_for_x();
  slices.make_all(base, x_row_bytes, m);
  clear_slices<kLoraThreads>(p);
  if (!gathers) return;
  if (b.has_rest()) {
    lora_barrier();
    b.stage_rest();
  }
  gather.run();
  device::wait_async_copies<0>();
  lora_barrier();
  b.make_sums<T>(index, m);
}

// Stores one token's outputs in rows g and g + 8 of a tile, completed by its adapter. sums: B v of the token's outputs
// in that tile.
template <class T>
__device__ __forceinline__ void store_outputs_with_lora(const DecodeLoraParams& p, const OutputParams& o,
                                                        const LoraShared& shared, int tile, int g, int token,
                                                        float sum0, float sum1, const float* sums) {
  store_outputs<T>(o, tile, g, token, sum0, sum1, [&](int half, float value) {
    const float base = device::to_float(device::from_float<T>(value));
    const LoraOutput of = lora_output(p, o, tile, g + 8 * half);
    if (of.projection < 0) return base;
    return complete_by_adapter(base, shared.tokens[of.projection][token], of.output, sums[g + 8 * half]);
  });
}

}  // namespace lorikeet::kernels::int4
