// How blocks that keep x are cut, their shared memory and their kernel: what their shape (kernels/int4/decode/shape.cu)
// and their launch (kernels/int4/decode/int4_decode.cu) share. Included by these alone.
#pragma once

#include <algorithm>

#include "kernels/base/rounding.h"
#include "kernels/cuda/element_dispatch.cuh"
#include "kernels/int4/decode/int4_decode.h"
#include "kernels/int4/decode/kernels.cuh"

namespace lorikeet::kernels::int4 {

constexpr uint64_t align_up(uint64_t bytes) {
  return round_up<uint64_t>(bytes, 128);
}

inline DecodeLora decode_lora(const Int4DecodeShape& shape) {
  if (shape.lora.projections == 0) return DecodeLora::none;
  return shape.one_token_rank > 0 ? DecodeLora::of_one_token : DecodeLora::of_tokens;
}

// How a block that keeps x is cut, and its shared memory.
struct KeptSizes {
  int32_t x_row_bytes = 0;
  int32_t workers = 0;  // warps that stream: those that have a part of k of a tile to do
  uint64_t x = 0;       // of all tokens, of the inputs that a block takes
  uint64_t parts = 0;   // of all tiles that a block finishes
  uint64_t ring = 0;    // of all warps
  int32_t stages = 0;
  uint64_t lora = 0;    // what is known of the tokens' adapters, v and B v
  uint64_t slices = 0;  // of A of one token, of all warps that make them
  uint64_t pieces = 0;  // of B

  KeptSizes(const PackedInt4Weight& weight, int32_t m, const Int4DecodeShape& shape) : stages(shape.depth) {
    const int32_t parts_of_block = kPartsOfK / shape.cluster;
    const int32_t first_unit = part_begin(weight.units, kPartsOfK - parts_of_block);
    const bool with_slices = decode_lora(shape) == DecodeLora::of_one_token;
    const int32_t units = weight.units - (with_slices ? slice_aligned(first_unit) : first_unit);
    x_row_bytes = units * kDecodeUnitXBytes + kDecodeRowPadding;
    x = align_up(static_cast<uint64_t>(m) * static_cast<uint64_t>(x_row_bytes));
    const int32_t tiles = divide_up(weight.tiles, shape.blocks / shape.cluster);
    workers = std::min(kDecodeWarps, tiles * parts_of_block);
    const int32_t owned = divide_up(tiles, shape.cluster);
    parts = align_up(static_cast<uint64_t>(owned * kPartsOfK * m * kTileRows) * sizeof(float));
    ring = static_cast<uint64_t>(workers * stages * chunk_stage_bytes(shape.chunk * weight.unit_bytes()));
    if (shape.lora.projections == 0) return;
    if (with_slices) {
      lora = align_up(token_lora_shared_bytes(shape.lora, owned));
      slices = static_cast<uint64_t>(helpers(weight, shape) * kSliceBytes);
      pieces = static_cast<uint64_t>(owned * 2 * lora::rank_tiles(shape.one_token_rank) * kPieceBytes);
    } else {
      lora = align_up(lora_shared_bytes(shape.lora, m, owned));
      pieces = static_cast<uint64_t>(shape.lora_pieces * kPieceBytes);
    }
  }
  uint64_t ring_offset() const { return x + parts; }
  uint64_t barriers_offset() const { return ring_offset() + ring; }
  uint64_t squares_offset() const {
    return barriers_offset() + static_cast<uint64_t>(kDecodeWarps * stages + 1 + kLoraBarriers) * sizeof(uint64_t);
  }
  uint64_t lora_offset() const {
    return align_up(squares_offset() + static_cast<uint64_t>(kNormRows * kDecodeWarps) * sizeof(float));
  }
  uint64_t pieces_offset() const { return lora_offset() + lora; }
  uint64_t slices_offset() const { return pieces_offset() + pieces; }
  uint64_t total() const { return slices_offset() + slices; }

  // Warps that make slices of A x of one token: as many as have one to make at that rank.
  static int32_t helpers(const PackedInt4Weight& weight, const Int4DecodeShape& shape) {
    const int32_t slices = lora::rank_tiles(shape.one_token_rank) * shape.lora.projections * slices_of(weight);
    return std::clamp(divide_up(slices, shape.blocks), 1, kMostHelpers);
  }
  static int32_t slices_of(const PackedInt4Weight& weight) { return divide_up(weight.units, kSliceUnits); }
};

inline DecodeKernel decode_kernel(const PackedInt4Weight& weight, Dtype dtype, DecodeLora lora) {
  DecodeKernel kernel = nullptr;
  with_activation_type(dtype, [&](auto element) {
    using T = typename decltype(element)::type;
    const auto of = [&]<DecodeLora kLora>() {
      kernel = decode_kernel<T, kLora>(weight.scale_block, weight.asymmetric);
    };
    switch (lora) {
      case DecodeLora::none:
        return of.template operator()<DecodeLora::none>();
      case DecodeLora::of_tokens:
        return of.template operator()<DecodeLora::of_tokens>();
      case DecodeLora::of_one_token:
        return of.template operator()<DecodeLora::of_one_token>();
    }
  });
  return kernel;
}

}  // namespace lorikeet::kernels::int4
