// The int4 product for up to kInt4DecodeRows tokens: how its launch is shaped. Used by kernels/int4/int4_gemm_cuda.h
// and by benchmarks that compare shapes; the result does not depend on the shape.
#pragma once

#include "kernels/int4/int4_gemm_cuda.h"

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

  // Keeping x: a block's shared memory. Usually more than half of a processor's, as of two blocks of one product a
  // processor would make twice its share. A block that is no larger than that `leaves_room` for one of the next product
  // that takes `bytes_beside`.
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

// What the device offers to the kernels: read once.
struct Int4DecodeDevice {
  int32_t multiprocessors = 0;
  uint64_t shared_bytes_per_block = 0;
  bool clusters = false;  // the kernels that run here were compiled for a device with clusters
  bool groups = false;    // likewise, for one with the matrix steps of warpgroups
  static Int4DecodeDevice current();
};

// Whether a block of that shape finds room; what shape_int4_decode chooses without wishes always does.
bool int4_decode_fits(const PackedInt4Weight& weight, int32_t m, const Int4DecodeWish& wish,
                      const Int4DecodeDevice& device);

// Whether the shape that is chosen without other wishes can complete the outputs by adapters.
bool int4_decode_takes_lora(const PackedInt4Weight& weight, int32_t m, const LoraLinear& linear, int32_t max_rank,
                            const Int4DecodeDevice& device);

Int4DecodeShape shape_int4_decode(const PackedInt4Weight& weight, int32_t m, Dtype dtype, const Int4DecodeWish& wish,
                                  const Int4DecodeDevice& device);

// Whether that shape's kernel makes x of a NormPrologue.
bool int4_decode_takes_norm(const PackedInt4Weight& weight, const Int4DecodeShape& shape);

// m up to kInt4DecodeRows. A streaming shape does not permute x: where the weight has a permutation, args.x must be in
// the order of the stored inputs (gather_inputs_cuda). `beside`: the kernel in front is a product whose shape leaves
// room.
void int4_decode(const PackedInt4Weight& weight, const Int4GemmArgs& args, const Int4DecodeShape& shape,
                 const Stream& stream, bool beside = false);

}  // namespace lorikeet::kernels
