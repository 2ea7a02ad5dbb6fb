#include "kernels/int4/base/int4_lora.h"

#include <algorithm>

#include "kernels/base/cuda_check.h"
#include "kernels/int4/decode/lora.cuh"

namespace lorikeet::kernels {
namespace {

constexpr int32_t kPlaces = 3;  // of slices

constexpr int32_t slice_count(int32_t inputs) {
  return (lora::input_blocks(inputs) + lora::kSliceBlocks - 1) / lora::kSliceBlocks;
}

}  // namespace

namespace int4 {

DecodeLoraParams decode_lora_params(const Int4Lora& lora, int32_t m) {
  CHECK_EQ(lora.rows.rows, m);
  CHECK_LE(lora.rows.max_rank, kMostFusedRank);
  DecodeLoraParams p{};
  p.entries = lora.table.entries + lora.linear.first_entry;
  p.slot_stride = lora.table.slot_stride;
  p.counts = lora.rows.counts;
  p.tiles = lora.rows.tiles;
  p.order = lora.rows.order;
  p.slices = lora.turn.slices;
  std::copy(std::begin(lora.turn.cleared), std::end(lora.turn.cleared), p.cleared);
  p.parts = lora.turn.parts;
  p.part_count = lora::input_parts(lora.linear.inputs);
  p.x_done = lora.x_done;
  p.x_blocks = lora.x_blocks;
  p.done = lora.done;
  p.rank_stride = lora::padded_rank(lora.rows.max_rank);
  p.v_stride = lora_v_stride(lora.rows.max_rank);
  p.projections = lora.linear.projections;
  p.slice_count = slice_count(lora.linear.inputs);
  p.inputs = lora.linear.inputs;
  p.most_tiles = lora.rows.most_tiles;
  p.most_blocks = lora_most_blocks(lora.rows.max_rank, m);
  for (int i = 0; i < p.projections; i++) {
    p.columns[i + 1] = p.columns[i] + lora.linear.outputs[static_cast<size_t>(i)];
  }
  return p;
}

}  // namespace int4

Result<Int4LoraScratch> Int4LoraScratch::make(int32_t max_inputs, int32_t max_rank, const Stream& stream) {
  Int4LoraScratch scratch;
  scratch.token_floats_ =
      slice_count(max_inputs) * kMaxFusedLora * lora::padded_rank(std::min(max_rank, kMostFusedRank));
  const int32_t parts_floats = lora::input_parts(max_inputs) * int4::kMostTokens * kMaxFusedLora *
                               lora::padded_rank(std::min(max_rank, kMostFusedRank));
  const uint64_t bytes = static_cast<uint64_t>(kPlaces * scratch.token_floats_ + parts_floats) * sizeof(float);
  Result<DeviceBuffer> memory = DeviceBuffer::allocate(bytes, "the scratch of LoRA in int4 products");
  if (!memory) return tl::unexpected(memory.error());
  scratch.memory_ = std::move(*memory);
  static_assert(kLoraNoSum == 0xffffffff);
  fill_bytes(scratch.memory_.data(), 0xff, bytes, stream);
  return scratch;
}

Int4LoraTurn Int4LoraScratch::turn(int32_t number, int32_t tokens) const {
  // Slices of a product lie in one of three places, which must hold kLoraNoSum everywhere before another product uses
  // it. Products 1, 2, 3 ... of a step use places 1 and 0 in turn, and each clears the place that the product before it
  // used. Product 0 cannot know in which of the two the step before ended: it uses place 2, and clears both. Products of
  // several tokens leave them alone.
  const auto place = [&](int32_t i) { return memory_.as<float>() + static_cast<int64_t>(i) * token_floats_; };
  const auto clear = [&](int32_t i) { return LoraCleared{place(i), token_floats_ / 4}; };
  Int4LoraTurn turn;
  turn.parts = place(kPlaces);
  if (tokens > 1) return turn;
  if (number == 0) {
    turn.slices = place(2);
    turn.cleared[0] = clear(0);
    turn.cleared[1] = clear(1);
  } else {
    turn.slices = place(number % 2);
    turn.cleared[0] = clear(number == 1 ? 2 : (number - 1) % 2);
  }
  return turn;
}

}  // namespace lorikeet::kernels
