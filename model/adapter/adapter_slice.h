// One rank's part of an adapter as bytes in the layout that its slot takes: packed once, then copied to the device as it
// is, or used where it lies. Of adapters without DoRA, whose factors need the base weights (model/adapter/adapter.h
// encodes those).
//
//   64 bytes       kSliceMagic (16), layout (4), number of places (4), digest (32 hex digits), rank (4), ranks (4)
//   places         rank (4; 0: nothing there), scale (4, a float's bits) for each place
//   from a multiple of kSliceAlignment on: A, then B, of every place that there is, each from a multiple of 512 on
//   to a multiple of kSliceAlignment
//
// Places are the projections of every layer in order, then lm_head, then the embedding. All numbers are little-endian.
// Where a matrix lies follows from the ranks and the shard plan, so nothing of the bytes is believed but these.
#pragma once

#include <cstdint>
#include <memory>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "kernels/base/error.h"
#include "model/adapter/adapter.h"
#include "model/adapter/adapter_file.h"
#include "model/checkpoint/shard_plan.h"

namespace lorikeet::model {

inline constexpr std::string_view kSliceMagic = "lorikeet-slice-1";
inline constexpr uint64_t kSliceAlignment = 4096;
inline constexpr int32_t kMaxSliceRank = 1 << 16;  // that is read; slots refuse less

// How the matrices lie.
enum class SliceLayout : uint32_t {
  cpu_f32 = 1,    // float32: A [rank, inputs], B [rank, outputs] (kernels/lora/lora.h)
  cuda_f16 = 2,   // fp16 in the blocks of kernels/lora/lora_layout.h, the embedding as that header has it
  cuda_bf16 = 3,  // the same in bfloat16
};

struct SlicePair {
  int32_t rank = 0;  // 0: there is no pair
  int32_t inputs = 0;
  int32_t outputs = 0;
  float scale = 0;
  uint64_t a = 0, b = 0;  // where they begin, in bytes from the slice's begin
};

struct AdapterSlice {
  std::string digest;
  SliceLayout layout = SliceLayout::cpu_f32;
  int32_t rank = 0, ranks = 1;    // whose it is, of the shard plan
  std::vector<SlicePair> places;  // [layers * kNumProjections + 2]
  uint64_t bytes = 0;

  const SlicePair& of(size_t layer, size_t projection) const { return places[layer * kNumProjections + projection]; }
  const SlicePair& lm_head() const { return places[places.size() - 2]; }
  const SlicePair& embedding() const { return places.back(); }
};

// What the slice of `rank` will be. The adapter has no DoRA; of its pairs the values are not needed yet, nor is its digest.
AdapterSlice plan_slice(const Adapter& whole, const ShardPlan& plan, int rank, SliceLayout layout);

// Writes the slices of all ranks, as planned, by up to so many threads. to: [ranks] memory of as many bytes as each
// slice, zeros. Refuses values that are not finite in the layout's type.
Result<void> write_slices(const Adapter& whole, const ShardPlan& plan, std::span<const AdapterSlice> slices,
                          std::span<uint8_t* const> to, int threads);

// The same matrix by matrix, as they come (AdapterFile::stream): where a matrix will lie in a slice, the slice's header,
// which has the digest, and a matrix in the slices of all ranks. Any order, any thread.
struct SliceRange {
  uint64_t offset = 0, bytes = 0;
};
SliceRange header_range(const AdapterSlice& slice);
SliceRange range_of(const AdapterSlice& slice, size_t place, bool is_b);
void write_header(const AdapterSlice& slice, uint8_t* to);
Result<void> write_matrix(const LoraMatrix& matrix, const Adapter& outline, const ShardPlan& plan,
                          std::span<const AdapterSlice> slices, std::span<uint8_t* const> to);

// Whether the bytes begin as a slice does.
bool is_slice(std::span<const uint8_t> bytes);

// What a slice that came from elsewhere holds. Refuses what is not one of that rank and layout, whole.
Result<AdapterSlice> read_slice(std::span<const uint8_t> bytes, const ShardPlan& plan, int rank, SliceLayout layout);

}  // namespace lorikeet::model
