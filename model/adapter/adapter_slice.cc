#include "model/adapter/adapter_slice.h"

#include <glog/logging.h>

#include <algorithm>
#include <array>
#include <bit>
#include <cmath>
#include <cstring>

#include "kernels/base/rounding.h"
#include "kernels/lora/lora_layout.h"
#include "kernels/lora/lora_pack.h"
#include "model/checkpoint/in_parallel.h"

namespace lorikeet::model {
namespace {

namespace lora = kernels::lora;
using kernels::Dtype;
using kernels::round_up;

constexpr uint64_t kMatrixAlignment = 512;
constexpr uint64_t kHeaderBytes = 64, kPlaceBytes = 8;
constexpr size_t kDigestSize = 32;

Dtype dtype_of(SliceLayout layout) {
  return layout == SliceLayout::cuda_f16 ? Dtype::f16 : layout == SliceLayout::cuda_bf16 ? Dtype::bf16 : Dtype::f32;
}

std::string_view name_of(SliceLayout layout) {
  return layout == SliceLayout::cuda_f16    ? "fp16 on a CUDA device"
         : layout == SliceLayout::cuda_bf16 ? "bfloat16 on a CUDA device"
         : layout == SliceLayout::cpu_f32   ? "float32 on the CPU"
                                            : "no layout";
}

size_t places_of(const ModelConfig& config) {
  return static_cast<size_t>(config.num_layers) * kNumProjections + 2;
}

// What of the whole pair a place of the rank has.
struct Cut {
  Range outputs, inputs;
};

Cut cut_of(const ShardPlan& plan, int rank, size_t place) {
  const ModelConfig& config = plan.config();
  const size_t layers = places_of(config) - 2;
  if (place == layers) return {plan.shard(rank).vocab, {0, config.hidden_size}};
  if (place == layers + 1) return {{0, config.hidden_size}, {0, config.vocab_size}};
  const Projection p = kProjections[place % kNumProjections];
  return {plan.outputs(p, rank), plan.inputs(p, rank)};
}

const LoraPair* pair_at(const Adapter& whole, size_t place) {
  const size_t layers = whole.layers.size() * kNumProjections;
  const auto& pair = place == layers       ? whole.lm_head
                     : place == layers + 1 ? whole.embedding
                                           : whole.layers[place / kNumProjections][place % kNumProjections];
  return pair ? &*pair : nullptr;
}

struct Sizes {
  uint64_t a = 0, b = 0;
};

Sizes sizes_of(const SlicePair& pair, SliceLayout layout, bool is_embedding) {
  if (layout == SliceLayout::cpu_f32) {
    const auto row = static_cast<uint64_t>(pair.rank) * sizeof(float);
    return {row * static_cast<uint64_t>(pair.inputs), row * static_cast<uint64_t>(pair.outputs)};
  }
  if (is_embedding) {
    return {lora::embedding_factor_bytes(pair.rank, pair.inputs),
            lora::embedding_factor_bytes(pair.rank, pair.outputs)};
  }
  return {lora::a_bytes(pair.rank, pair.inputs), lora::b_bytes(pair.rank, pair.outputs)};
}

// Gives every pair, whose rank is known, its sizes and its place.
void lay_out(const ShardPlan& plan, int rank, AdapterSlice& slice) {
  uint64_t at = round_up(kHeaderBytes + kPlaceBytes * slice.places.size(), kSliceAlignment);
  for (size_t place = 0; place < slice.places.size(); ++place) {
    SlicePair& pair = slice.places[place];
    if (pair.rank == 0) continue;
    const Cut cut = cut_of(plan, rank, place);
    pair.inputs = cut.inputs.size();
    pair.outputs = cut.outputs.size();
    const Sizes sizes = sizes_of(pair, slice.layout, place + 1 == slice.places.size());
    pair.a = at;
    pair.b = round_up(pair.a + sizes.a, kMatrixAlignment);
    at = round_up(pair.b + sizes.b, kMatrixAlignment);
  }
  slice.bytes = round_up(at, kSliceAlignment);
}

// A of a whole pair of `whole_inputs`, of which the rank has columns [inputs.begin, inputs.end). Whether its values fit
// the type, as below.
bool pack_a(const LoraMatrix& a, int32_t whole_inputs, const SlicePair& pair, Range inputs, SliceLayout layout,
            bool is_embedding, uint8_t* to) {
  const Dtype dtype = dtype_of(layout), from = a.dtype;
  const uint8_t* const values = a.values + static_cast<size_t>(inputs.begin) * kernels::size_of(from);
  if (layout == SliceLayout::cpu_f32) {
    const size_t row = static_cast<size_t>(pair.inputs) * sizeof(float);
    for (int32_t r = 0; r < pair.rank; ++r, to += row) {
      lora::convert_floats(values, from, static_cast<int64_t>(r) * whole_inputs, pair.inputs, dtype, to);
    }
    return true;  // float32 holds what the file's types do
  }
  auto* const out = reinterpret_cast<uint16_t*>(to);
  const lora::StoredFactor factor{values, from, whole_inputs};
  if (!is_embedding) return lora::pack_a(factor, pair.rank, pair.inputs, dtype, out);
  lora::pack_embedding_a(factor, pair.rank, 0, pair.inputs, dtype, out);
  return lora::all_finite(out, static_cast<uint64_t>(pair.rank) * static_cast<uint64_t>(pair.inputs), dtype);
}

// B [outputs, rank] as [rank, outputs] of float32.
void transpose_b(const uint8_t* values, Dtype from, const SlicePair& pair, float* to) {
  constexpr int32_t kAtOnce = 32;  // outputs whose rows stay in the cache
  const auto rank = static_cast<size_t>(pair.rank), outputs = static_cast<size_t>(pair.outputs);
  std::vector<float> rows(kAtOnce * rank);
  for (int32_t first = 0; first < pair.outputs; first += kAtOnce) {
    const int32_t count = std::min(kAtOnce, pair.outputs - first);
    lora::convert_floats(values, from, static_cast<int64_t>(first) * pair.rank, static_cast<int64_t>(count) * pair.rank,
                         Dtype::f32, rows.data());
    for (size_t r = 0; r < rank; ++r) {
      float* const out = to + r * outputs + static_cast<size_t>(first);
      for (size_t n = 0; n < static_cast<size_t>(count); ++n) out[n] = rows[n * rank + r];
    }
  }
}

// B of a whole pair, of which the rank has rows [outputs.begin, outputs.end).
bool pack_b(const LoraMatrix& b, const SlicePair& pair, Range outputs, SliceLayout layout, bool is_embedding,
            uint8_t* to) {
  const Dtype dtype = dtype_of(layout), from = b.dtype;
  const uint8_t* const values =
      b.values + static_cast<size_t>(outputs.begin) * static_cast<size_t>(pair.rank) * kernels::size_of(from);
  if (layout == SliceLayout::cpu_f32) {
    transpose_b(values, from, pair, reinterpret_cast<float*>(to));
    return true;
  }
  auto* const out = reinterpret_cast<uint16_t*>(to);
  if (!is_embedding) return lora::pack_b({values, from, pair.rank}, pair.rank, pair.outputs, dtype, out);
  const int64_t count = static_cast<int64_t>(pair.outputs) * pair.rank;
  lora::convert_floats(values, from, 0, count, dtype, out);
  return lora::all_finite(out, static_cast<uint64_t>(count), dtype);
}

std::string name_of_place(const Adapter& whole, size_t place) {
  const size_t layers = whole.layers.size() * kNumProjections;
  if (place == layers) return "lm_head";
  if (place == layers + 1) return "embedding";
  return fmt::format("layer {}, {}", place / kNumProjections, module_name_of(kProjections[place % kNumProjections]));
}

// The rank's part of a matrix of `whole` into its slice, which begins at `begin`.
bool pack(const LoraMatrix& matrix, const LoraPair& whole, const ShardPlan& plan, const AdapterSlice& slice,
          uint8_t* begin) {
  const SlicePair& pair = slice.places[matrix.place];
  const Cut cut = cut_of(plan, slice.rank, matrix.place);
  const bool is_embedding = matrix.place + 1 == slice.places.size();
  return matrix.is_b ? pack_b(matrix, pair, cut.outputs, slice.layout, is_embedding, begin + pair.b)
                     : pack_a(matrix, whole.inputs, pair, cut.inputs, slice.layout, is_embedding, begin + pair.a);
}

Result<void> not_finite(const Adapter& whole, size_t place, SliceLayout layout) {
  return fail("the adapter's {} has weights that are not finite as {}", name_of_place(whole, place),
              kernels::name_of(dtype_of(layout)));
}

}  // namespace

AdapterSlice plan_slice(const Adapter& whole, const ShardPlan& plan, int rank, SliceLayout layout) {
  CHECK(!whole.uses_dora());
  AdapterSlice slice;
  slice.digest = whole.digest;
  slice.layout = layout;
  slice.rank = rank;
  slice.ranks = plan.size();
  slice.places.resize(places_of(plan.config()));
  for (size_t place = 0; place < slice.places.size(); ++place) {
    const LoraPair* const pair = pair_at(whole, place);
    if (pair == nullptr) continue;
    slice.places[place].rank = pair->rank;
    slice.places[place].scale = pair->scale;
  }
  lay_out(plan, rank, slice);
  return slice;
}

SliceRange header_range(const AdapterSlice& slice) {
  return {0, kHeaderBytes + kPlaceBytes * slice.places.size()};
}

SliceRange range_of(const AdapterSlice& slice, size_t place, bool is_b) {
  const SlicePair& pair = slice.places[place];
  const Sizes sizes = sizes_of(pair, slice.layout, place + 1 == slice.places.size());
  return is_b ? SliceRange{pair.b, sizes.b} : SliceRange{pair.a, sizes.a};
}

void write_header(const AdapterSlice& slice, uint8_t* to) {
  CHECK_EQ(slice.digest.size(), kDigestSize);
  const std::array<uint32_t, 2> words = {static_cast<uint32_t>(slice.layout),
                                         static_cast<uint32_t>(slice.places.size())};
  std::memcpy(to, kSliceMagic.data(), kSliceMagic.size());
  std::memcpy(to + kSliceMagic.size(), words.data(), sizeof words);
  std::memcpy(to + kSliceMagic.size() + sizeof words, slice.digest.data(), kDigestSize);
  const std::array<int32_t, 2> whose = {slice.rank, slice.ranks};
  std::memcpy(to + kSliceMagic.size() + sizeof words + kDigestSize, whose.data(), sizeof whose);
  to += kHeaderBytes;
  for (const SlicePair& pair : slice.places) {
    std::memcpy(to, &pair.rank, sizeof pair.rank);
    std::memcpy(to + sizeof pair.rank, &pair.scale, sizeof pair.scale);
    to += kPlaceBytes;
  }
}

Result<void> write_matrix(const LoraMatrix& matrix, const Adapter& outline, const ShardPlan& plan,
                          std::span<const AdapterSlice> slices, std::span<uint8_t* const> to) {
  const LoraPair& whole = *pair_at(outline, matrix.place);
  for (size_t rank = 0; rank < slices.size(); ++rank) {
    if (!pack(matrix, whole, plan, slices[rank], to[rank])) {
      return not_finite(outline, matrix.place, slices[rank].layout);
    }
  }
  return {};
}

Result<void> write_slices(const Adapter& whole, const ShardPlan& plan, std::span<const AdapterSlice> slices,
                          std::span<uint8_t* const> to, int threads) {
  struct Task {
    size_t rank = 0;
    LoraMatrix matrix;
  };
  std::vector<Task> tasks;
  for (size_t rank = 0; rank < slices.size(); ++rank) {
    write_header(slices[rank], to[rank]);
    for (size_t place = 0; place < slices[rank].places.size(); ++place) {
      if (slices[rank].places[place].rank == 0) continue;
      const LoraPair& pair = *pair_at(whole, place);
      tasks.push_back({rank, {place, false, pair.a.dtype(), pair.a.bytes().data()}});
      tasks.push_back({rank, {place, true, pair.b.dtype(), pair.b.bytes().data()}});
    }
  }
  std::vector<uint8_t> finite(tasks.size(), 1);
  in_parallel(tasks.size(), threads, [&](size_t i) {
    const auto& [rank, matrix] = tasks[i];
    finite[i] = pack(matrix, *pair_at(whole, matrix.place), plan, slices[rank], to[rank]) ? 1 : 0;
  });
  for (size_t i = 0; i < tasks.size(); ++i) {
    if (finite[i] == 0) return not_finite(whole, tasks[i].matrix.place, slices.front().layout);
  }
  return {};
}

bool is_slice(std::span<const uint8_t> bytes) {
  return bytes.size() >= kSliceMagic.size() && std::memcmp(bytes.data(), kSliceMagic.data(), kSliceMagic.size()) == 0;
}

Result<AdapterSlice> read_slice(std::span<const uint8_t> bytes, const ShardPlan& plan, int rank, SliceLayout layout) {
  if (!is_slice(bytes)) return fail("adapter slice: not one");
  AdapterSlice slice;
  slice.layout = layout;
  slice.places.resize(places_of(plan.config()));
  if (bytes.size() < kHeaderBytes + kPlaceBytes * slice.places.size()) {
    return fail("adapter slice: {} bytes are too short for its header", bytes.size());
  }
  std::array<uint32_t, 2> words{};
  std::memcpy(words.data(), bytes.data() + kSliceMagic.size(), sizeof words);
  if (words[0] != static_cast<uint32_t>(layout)) {
    return fail("adapter slice: for {}, the slots of rank {} take {}", name_of(static_cast<SliceLayout>(words[0])),
                rank, name_of(layout));
  }
  if (words[1] != slice.places.size()) {
    return fail("adapter slice: of {} places, the model has {}", words[1], slice.places.size());
  }
  slice.digest.assign(reinterpret_cast<const char*>(bytes.data()) + kSliceMagic.size() + sizeof words, kDigestSize);
  std::array<int32_t, 2> whose{};
  std::memcpy(whose.data(), bytes.data() + kSliceMagic.size() + sizeof words + kDigestSize, sizeof whose);
  if (whose != std::array<int32_t, 2>{rank, plan.size()}) {
    return fail("adapter slice: of rank {} of {}, this is rank {} of {}", whose[0], whose[1], rank, plan.size());
  }
  slice.rank = rank;
  slice.ranks = plan.size();
  for (size_t place = 0; place < slice.places.size(); ++place) {
    SlicePair& pair = slice.places[place];
    const uint8_t* const at = bytes.data() + kHeaderBytes + kPlaceBytes * place;
    std::memcpy(&pair.rank, at, sizeof pair.rank);
    std::memcpy(&pair.scale, at + sizeof pair.rank, sizeof pair.scale);
    if (pair.rank < 0 || pair.rank > kMaxSliceRank) {
      return fail("adapter slice: rank {} at place {}", pair.rank, place);
    }
    if (!std::isfinite(pair.scale)) return fail("adapter slice: the scale at place {} is not a number", place);
  }
  lay_out(plan, rank, slice);
  if (bytes.size() != slice.bytes) {
    return fail("adapter slice: of {} bytes, its ranks call for {}", bytes.size(), slice.bytes);
  }
  return slice;
}

}  // namespace lorikeet::model
