// How the int4 product of warps' matrix steps for many tokens is cut up (kernels/int4/prefill/int4_warp_prefill.h): what
// the host's plan and the kernel must agree on.
//
// The outputs are cut into areas of kAreaTiles tiles and some columns (tokens); areas of the same tiles follow each
// other. An area is made in steps of kStepInputs inputs. The steps of all areas, one area behind the other, are shared
// out among the blocks, so that each walks over as many as any other: it ends an area that an earlier block has begun,
// makes some alone, and begins one that a later block ends.
#pragma once

#include <cstdint>

#include "kernels/int4/base/layout.h"
#include "kernels/int4/prefill/shared_walk.h"

namespace lorikeet::kernels::int4 {

inline constexpr int kAreaTiles = 8;
inline constexpr int kStepInputs = kUnitInputs / 2;
inline constexpr int kWarpPrefillWarps = 8;
inline constexpr int kWarpPrefillThreads = kWarpPrefillWarps * 32;
inline constexpr int kWarpPrefillStages = 4;
inline constexpr int kStepRowBytes = kStepInputs * 2;          // of x
inline constexpr int kStepNibbleBytes = kNibbleBytes / 2;      // of a tile
inline constexpr int kStageAlignment = 128;                    // bytes
inline constexpr int kWarpPrefillTailBytes = kStageAlignment;  // of shared memory behind the stages

// What a step brings of a tile: nibbles, then scales, then zeros. A scale for all of a unit comes with both its steps.
constexpr int step_scale_blocks(int scale_block) {
  return scale_block < kStepInputs ? kStepInputs / scale_block : 1;
}
constexpr int step_scale_bytes(int scale_block) {
  return step_scale_blocks(scale_block) * kTileRows * 2;
}
constexpr int step_zero_bytes(int scale_block, bool asymmetric) {
  return asymmetric ? step_scale_blocks(scale_block) * kTileRows : 0;
}
constexpr int step_tile_bytes(int scale_block, bool asymmetric) {
  return kStepNibbleBytes + step_scale_bytes(scale_block) + step_zero_bytes(scale_block, asymmetric);
}
// Of shared memory: x of `columns` tokens, then the tiles.
constexpr int step_stage_bytes(int columns, int scale_block, bool asymmetric) {
  const int bytes = columns * kStepRowBytes + kAreaTiles * step_tile_bytes(scale_block, asymmetric);
  return (bytes + kStageAlignment - 1) / kStageAlignment * kStageAlignment;
}

// Of a block.
constexpr int warp_prefill_shared_bytes(int columns, int scale_block, bool asymmetric) {
  return kWarpPrefillStages * step_stage_bytes(columns, scale_block, asymmetric) + kWarpPrefillTailBytes;
}

// Bytes of a place.
constexpr int64_t area_sum_bytes(int columns) {
  return int64_t{kAreaTiles} * kTileRows * columns * 4;
}

}  // namespace lorikeet::kernels::int4
