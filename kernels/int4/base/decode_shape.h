// How a launch of the int4 product for up to kInt4DecodeRows tokens is shaped: by kernels whose blocks keep x
// (kernels/int4/decode/int4_decode.h) or by those through which it streams (kernels/int4/stream/int4_stream.h). The
// result does not depend on the shape.
#pragma once

#include <cstdint>

#include "kernels/int4/base/gemm_args.h"
#include "kernels/int4/base/packed_weight.h"

namespace lorikeet::kernels {

struct Int4DecodeShape {
  bool streams_x = false;  // x streams beside the weights; otherwise each block keeps what it takes of it
  int32_t blocks = 1;
  int32_t cluster = 1;      // blocks that divide k: 1, or 2 that keep x, or 4 that stream it
  int32_t depth = 2;        // stages of weights: of a block that streams x, of each warp of one that keeps it
  int32_t chunk = 1;        // keeping x: units of 128 inputs in a stage
  int32_t round_tiles = 0;  // streaming: tiles that a block works on at a time
  bool overlap = true;      // starts while the kernel before it ends
  bool groups = false;      // streaming: by matrix steps of warpgroups instead of warps

  // Keeping x: shared memory of a CTA. `bytes` is more than half of an SM's even where less is needed: two CTAs of one
  // product on one SM would have twice the work of the others, which would wait for them. Where the product in front
  // `leaves_room`, that is where its CTA needs no more than half, this one asks for `bytes_beside` instead, so that its
  // CTAs find room beside those that still run.
  uint64_t bytes = 0;
  uint64_t bytes_beside = 0;
  bool leaves_room = false;

  Int4LoraSize lora;        // what the kernel has room for
  int32_t lora_pieces = 0;  // of B in shared memory, of eight outputs and eight ranks each
  // Above 0: one token's LoRA, by the warps that stream and with no more of them; up to this rank B has room.
  int32_t one_token_rank = 0;
};

// The parts of a shape that the caller leaves open are 0.
struct Int4DecodeWish {
  enum class X { any, kept, streamed };
  X x = X::any;
  int32_t cluster = 0;
  int32_t depth = 0;
  bool overlap = true;
  int32_t chunk = 0;
  enum class Steps { any, of_warps, of_groups };
  Steps steps = Steps::any;
  Int4LoraSize lora = {};  // only where int4_decode_takes_lora says so
};

// What the device offers to the kernels: read once. Shapes are functions of it, so that those for other devices can be
// looked at anywhere.
struct Int4DecodeDevice {
  int32_t multiprocessors = 0;
  uint64_t shared_bytes_per_block = 0;
  bool clusters = false;  // the kernels that run here were compiled for a device with clusters
  bool groups = false;    // likewise, for one with the matrix steps of warpgroups
  // Clusters of two and of four blocks, each with all of a multiprocessor's shared memory, that run together.
  int32_t pairs = 0;
  int32_t quads = 0;
  static Int4DecodeDevice current();
};

}  // namespace lorikeet::kernels
