#include "kernels/lora/lora_slots.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <atomic>
#include <chrono>
#include <deque>
#include <thread>
#include <tuple>

#include "kernels/lora/lora_layout.h"
#include "kernels/lora/lora_pack.h"
#include "tests/kernels/base/held_stream.h"
#include "tests/kernels/lora/random_lora.h"

namespace lorikeet::kernels {
namespace {

using ::testing::HasSubstr;

LoraGeometry geometry_of(int32_t layers, Dtype dtype = Dtype::f16) {
  LoraGeometry geometry;
  geometry.layers = layers;
  geometry.inputs = {64, 64, 64, 64, 64, 64, 128};
  geometry.outputs = {64, 32, 32, 64, 128, 128, 64};
  geometry.hidden = 64;
  geometry.vocab = 50;
  geometry.lm_head_outputs = 50;
  geometry.max_rank = 64;
  geometry.dtype = dtype;
  return geometry;
}

class LoraSlotsCuda : public CudaTest {
 protected:
  static LoraSlots make(const LoraGeometry& geometry, int32_t slots, uint64_t bytes) {
    Result<LoraSlots> made = LoraSlots::make(geometry, slots, bytes);
    if (!made) throw std::runtime_error(made.error().message);
    return std::move(*made);
  }
  static std::string refusal(LoraSlots& slots, int32_t slot, const LoraAdapter& adapter) {
    const Result<void> loaded = slots.load(slot, adapter);
    return loaded ? "" : loaded.error().message;
  }

  // y = B (A x) for rows of one projection, with nothing in front of it.
  std::vector<float> product(const LoraSlots& slots, const LoraGeometry& geometry, int32_t layer, int32_t projection,
                             const std::vector<int32_t>& slot_of_row, const HalfTensor& x) {
    const auto rows = static_cast<int32_t>(slot_of_row.size());
    const auto p = static_cast<size_t>(projection);
    const LoraRowPlan plan(rows, slots.slots(), geometry.max_rank);
    std::vector<unsigned char> host(plan.bytes());
    plan.write(slot_of_row, slots.ranks(), host.data());
    const DeviceBuffer description = to_device(host);
    const DeviceBuffer x_device = to_device(x.stored);
    const DeviceBuffer y = zeroed(static_cast<uint64_t>(rows) * static_cast<uint64_t>(geometry.outputs[p]) * 2);
    LoraArgs args;
    args.table = slots.table();
    args.rows = plan.on_device(description.data(), rows);
    args.linear.first_entry = slots.entry(layer, projection);
    args.linear.projections = 1;
    args.linear.inputs = geometry.inputs[p];
    args.linear.outputs = {geometry.outputs[p]};
    args.dtype = args.y_dtype = geometry.dtype;
    args.x = x_device.data();
    args.x_stride = geometry.inputs[p];
    args.y = y.data();
    args.y_stride = geometry.outputs[p];
    Result<LoraProducts> products = LoraProducts::make(rows, geometry.inputs[p], geometry.max_rank);
    if (!products) throw std::runtime_error(products.error().message);
    products->shrink(args, stream_);
    products->expand(args, stream_);
    return to_values(to_host<uint16_t>(y), geometry.dtype);
  }
  void expect_adapter(const LoraSlots& slots, const LoraGeometry& geometry, int32_t slot, const RandomLora& lora) {
    for (int32_t layer = 0; layer < geometry.layers; layer++) {
      for (int32_t p = 0; p < kLoraProjections; p++) {
        const HalfTensor x =
            random_halves(static_cast<size_t>(geometry.inputs[static_cast<size_t>(p)]), geometry.dtype, random_);
        std::vector<double> expected(static_cast<size_t>(geometry.outputs[static_cast<size_t>(p)]), 0.0);
        if (lora.of(layer, p).rank > 0) expected = lora_delta(lora.of(layer, p), x.values.data());
        EXPECT_TRUE(
            near_reference(product(slots, geometry, layer, p, {slot}, x), expected, tolerance_of(geometry.dtype)))
            << "slot " << slot << " layer " << layer << " projection " << p;
      }
    }
  }

  std::mt19937 random_{17};
};

TEST_F(LoraSlotsCuda, HoldsAdaptersOfTrueRanksAndCountsTheirBytes) {
  const LoraGeometry geometry = geometry_of(3, Dtype::bf16);
  LoraSlots slots = make(geometry, 4, 4 << 20);
  EXPECT_EQ(slots.used_bytes(), 0U);
  std::vector<RandomLora> adapters;
  uint64_t bytes = 0;
  for (const int32_t rank : {1, 12, 64}) {
    adapters.emplace_back(geometry, random_);
    adapters.back().add_all(rank);
    ASSERT_TRUE(slots.load(static_cast<int32_t>(adapters.size()) - 1, adapters.back().adapter()));
    bytes += LoraSlots::adapter_bytes(geometry, rank);
    EXPECT_EQ(slots.used_bytes(), bytes);
    EXPECT_EQ(slots.ranks()[adapters.size() - 1], rank);
  }
  for (int32_t i = 0; i < 3; i++) expect_adapter(slots, geometry, i, adapters[static_cast<size_t>(i)]);
  expect_adapter(slots, geometry, 3, RandomLora(geometry, random_));  // an empty slot is the base model
  slots.clear(1);
  EXPECT_EQ(slots.used_bytes(), bytes - LoraSlots::adapter_bytes(geometry, 12));
  EXPECT_EQ(slots.ranks()[1], 0);
  expect_adapter(slots, geometry, 1, RandomLora(geometry, random_));
  expect_adapter(slots, geometry, 2, adapters[2]);
}

TEST_F(LoraSlotsCuda, PutsAnotherAdapterInPlaceOfTheOneBefore) {
  const LoraGeometry geometry = geometry_of(2);
  LoraSlots slots = make(geometry, 1, LoraSlots::adapter_bytes(geometry, 64));
  for (const int32_t rank : {64, 3, 40, 64}) {
    RandomLora lora(geometry, random_);
    lora.add_all(rank);
    const Result<void> loaded = slots.load(0, lora.adapter());
    ASSERT_TRUE(loaded) << loaded.error().message;
    EXPECT_EQ(slots.used_bytes(), LoraSlots::adapter_bytes(geometry, rank));
    expect_adapter(slots, geometry, 0, lora);
  }
}

TEST_F(LoraSlotsCuda, SaysHowMuchMemoryLacksAndLeavesTheSlotEmpty) {
  const LoraGeometry geometry = geometry_of(4);
  LoraSlots slots = make(geometry, 3, LoraSlots::adapter_bytes(geometry, 16) * 5 / 2);
  RandomLora lora(geometry, random_);
  lora.add_all(16);
  ASSERT_TRUE(slots.load(0, lora.adapter()));
  ASSERT_TRUE(slots.load(1, lora.adapter()));
  const uint64_t before = slots.used_bytes();
  EXPECT_THAT(refusal(slots, 2, lora.adapter()), HasSubstr("out of adapter memory"));
  EXPECT_EQ(slots.used_bytes(), before);
  EXPECT_EQ(slots.ranks()[2], 0);
  expect_adapter(slots, geometry, 2, RandomLora(geometry, random_));
  expect_adapter(slots, geometry, 0, lora);
  slots.clear(1);
  EXPECT_EQ(refusal(slots, 2, lora.adapter()), "");
  expect_adapter(slots, geometry, 2, lora);
}

TEST_F(LoraSlotsCuda, FitsAdaptersOfMixedRanksIntoWhatOthersLeft) {
  const LoraGeometry geometry = geometry_of(8);
  const int32_t ranks[] = {8, 16, 32, 64};
  LoraSlots slots = make(geometry, 6, LoraSlots::adapter_bytes(geometry, 64) * 2);
  std::vector<int32_t> held(6, 0);
  for (int step = 0; step < usual_or_few(60, 12); step++) {
    const auto slot = static_cast<size_t>(random_() % 6);
    const int32_t rank = ranks[random_() % 4];
    RandomLora lora(geometry, random_);
    lora.add_all(rank);
    held[slot] = 0;
    uint64_t needed = LoraSlots::adapter_bytes(geometry, rank);
    for (const int32_t other : held) needed += other > 0 ? LoraSlots::adapter_bytes(geometry, other) : 0;
    const bool loaded = slots.load(static_cast<int32_t>(slot), lora.adapter()).has_value();
    // Spans are per layer: what is lost between them is less than a layer of the largest rank for every adapter.
    const uint64_t layer = LoraSlots::adapter_bytes(geometry, 64) / 8;
    if (needed + 6 * layer <= slots.capacity_bytes()) {
      EXPECT_TRUE(loaded) << "step " << step;
    }
    if (needed > slots.capacity_bytes()) {
      EXPECT_FALSE(loaded) << "step " << step;
    }
    if (loaded) held[slot] = rank;
  }
}

TEST_F(LoraSlotsCuda, RefusesAdaptersThatAreNotTheModels) {
  const LoraGeometry geometry = geometry_of(1);
  LoraSlots slots = make(geometry, 1, 1 << 20);
  RandomLora lora(geometry, random_);
  lora.add_all(8);
  EXPECT_THAT(refusal(slots, 0, {lora.adapter().pairs.first(6), {}, {}}), HasSubstr("6 pairs for 1 layers of 7"));
  const auto changed = [&](const std::function<void(StoredLora&)>& change) {
    std::vector<StoredLora> pairs(lora.adapter().pairs.begin(), lora.adapter().pairs.end());
    change(pairs[3]);
    return refusal(slots, 0, {pairs, {}, {}});
  };
  EXPECT_EQ(changed([](StoredLora&) {}), "");
  EXPECT_THAT(changed([](StoredLora& w) { w.rank = 65; }), HasSubstr("layer 0 o has rank 65: 1 to 64 are served"));
  EXPECT_THAT(changed([](StoredLora& w) { w.rank = -1; }), HasSubstr("rank -1"));
  EXPECT_THAT(changed([](StoredLora& w) { w.inputs = 72; }), HasSubstr("maps 72 to 64, the model's 64 to 64"));
  EXPECT_THAT(changed([](StoredLora& w) { w.b = nullptr; }), HasSubstr("lacks A or B"));
  EXPECT_THAT(changed([](StoredLora& w) { w.scale = NAN; }), HasSubstr("scale that is not finite"));
  std::vector<float> a(8 * 64, 1);
  a[100] = 1e6F;
  EXPECT_THAT(changed([&](StoredLora& w) { w.a = a.data(); }),
              HasSubstr("layer 0 o has weights that are not finite as F16"));
  std::vector<float> factor(64, 1);
  factor[63] = INFINITY;
  EXPECT_THAT(changed([&](StoredLora& w) { w.dora_factor = factor.data(); }), HasSubstr("DoRA factor"));
  EXPECT_EQ(slots.used_bytes(), 0U);
}

TEST_F(LoraSlotsCuda, GivesTheEmbeddingItsDeltas) {
  for (const Dtype dtype : {Dtype::f16, Dtype::bf16}) {
    const LoraGeometry geometry = geometry_of(1, dtype);
    LoraSlots slots = make(geometry, 2, 1 << 20);
    RandomLora lora(geometry, random_);
    lora.add_embedding(5);
    lora.add_lm_head(3);
    ASSERT_TRUE(slots.load(1, lora.adapter()));
    EXPECT_EQ(slots.ranks()[1], 3);
    const HalfTensor table = random_halves(50 * 64, dtype, random_);
    const std::vector<int32_t> ids = {7, 49, 7, 0};
    const std::vector<int32_t> slot_of_token = {1, 1, 0, -1};
    const DeviceBuffer device_ids = to_device(ids), device_slots = to_device(slot_of_token),
                       device_table = to_device(table.stored), resolved = poisoned(16), residual = poisoned(4 * 64 * 4);
    EmbeddingArgs args;
    args.token_ids = device_ids.as<int32_t>();
    args.weight = device_table.data();
    args.dtype = dtype;
    args.vocab = 50;
    args.hidden = 64;
    args.tokens = 4;
    args.slots = device_slots.as<int32_t>();
    args.lora = slots.embedding_table();
    args.resolved = resolved.as<int32_t>();
    args.residual = residual.as<float>();
    embedding_cuda(args, stream_);
    std::vector<double> expected;
    for (size_t t = 0; t < ids.size(); t++) {
      std::vector<float> one_hot(50, 0.0F);
      one_hot[static_cast<size_t>(ids[t])] = 1;
      const std::vector<double> delta = lora_delta(lora.embedding(), one_hot.data());
      for (size_t h = 0; h < 64; h++) {
        expected.push_back(table.values[static_cast<size_t>(ids[t]) * 64 + h] + (slot_of_token[t] == 1 ? delta[h] : 0));
      }
    }
    EXPECT_TRUE(near_reference(to_host<float>(residual), expected, tests::kFloat32Tolerance));
  }
}

// The pairs of an adapter packed one behind the other, as a layer's memory has them.
class Packed {
 public:
  Packed(const LoraGeometry& geometry, const RandomLora& lora) {
    const LoraAdapter stored = lora.adapter();
    for (const StoredLora& pair : stored.pairs) pairs_.push_back(pack(pair, geometry.dtype));
    lm_head_ = pack(stored.lm_head, geometry.dtype);
    embedding_ = pack_embedding(stored.embedding, geometry);
  }
  PackedLoraAdapter adapter() const { return {pairs_, embedding_, lm_head_}; }

 private:
  uint16_t* memory(uint64_t bytes) {
    memory_.emplace_back(bytes / 2);
    return memory_.back().data();
  }
  PackedLora pack(const StoredLora& pair, Dtype dtype) {
    PackedLora packed;
    if (pair.rank == 0) return packed;
    const uint64_t a_bytes = lora::a_bytes(pair.rank, pair.inputs);
    uint16_t* const to = memory(a_bytes + lora::b_bytes(pair.rank, pair.outputs));
    EXPECT_TRUE(lora::pack_a({pair.a, pair.a_dtype, pair.inputs}, pair.rank, pair.inputs, dtype, to));
    EXPECT_TRUE(lora::pack_b({pair.b, pair.b_dtype, pair.rank}, pair.rank, pair.outputs, dtype, to + a_bytes / 2));
    return {to, to + a_bytes / 2, pair.rank, pair.inputs, pair.outputs, pair.scale};
  }
  PackedLora pack_embedding(const StoredLora& pair, const LoraGeometry& geometry) {
    if (pair.rank == 0) return {};
    uint16_t* const a = memory(lora::embedding_factor_bytes(pair.rank, geometry.vocab));
    uint16_t* const b = memory(lora::embedding_factor_bytes(pair.rank, geometry.hidden));
    lora::pack_embedding_a({pair.a, pair.a_dtype, pair.inputs}, pair.rank, 0, pair.inputs, geometry.dtype, a);
    lora::convert_floats(pair.b, pair.b_dtype, 0, static_cast<int64_t>(pair.rank) * pair.outputs, geometry.dtype, b);
    return {a, b, pair.rank, pair.inputs, pair.outputs, pair.scale};
  }

  std::deque<std::vector<uint16_t>> memory_;
  std::vector<PackedLora> pairs_;
  PackedLora embedding_, lm_head_;
};

TEST_F(LoraSlotsCuda, TakesWhatIsPackedAsWhatItPacksItself) {
  for (const Dtype dtype : {Dtype::f16, Dtype::bf16}) {
    LoraGeometry geometry = geometry_of(3, dtype);
    geometry.inputs[6] = 20'000;  // of which A is more than a piece on its way
    LoraSlots slots = make(geometry, 3, 32 << 20);
    RandomLora lora(geometry, random_);
    for (int32_t p = 0; p < kLoraProjections; p++) {
      lora.add(0, p, 16);
      if (p % 2 == 0) lora.add(2, p, p == 6 ? 64 : 13);
    }
    lora.add_embedding(5);
    lora.add_lm_head(3);
    ASSERT_TRUE(slots.load(0, lora.adapter()));
    const Packed packed(geometry, lora);
    const Result<void> loaded = slots.load(2, packed.adapter());
    ASSERT_TRUE(loaded) << loaded.error().message;
    EXPECT_EQ(slots.ranks()[2], 64);
    expect_adapter(slots, geometry, 2, lora);
    const auto entries = [&](int32_t slot) {
      std::vector<DeviceEmbeddingLora> all(3);
      copy_to_host(all.data(), slots.embedding_table(), 3 * sizeof(DeviceEmbeddingLora), stream_);
      stream_.synchronize();
      return all[static_cast<size_t>(slot)];
    };
    for (const auto& [from, other, rows] : {std::tuple(entries(0).a, entries(2).a, geometry.vocab),
                                            std::tuple(entries(0).b, entries(2).b, geometry.hidden)}) {
      std::vector<uint16_t> one(static_cast<size_t>(5 * rows)), two(one.size());
      copy_to_host(one.data(), from, one.size() * 2, stream_);
      copy_to_host(two.data(), other, two.size() * 2, stream_);
      stream_.synchronize();
      EXPECT_EQ(one, two);
    }
    // Again over what is there, and then nothing.
    ASSERT_TRUE(slots.load(0, packed.adapter()));
    expect_adapter(slots, geometry, 0, lora);
    slots.clear(2);
    expect_adapter(slots, geometry, 2, RandomLora(geometry, random_));
  }
}

TEST_F(LoraSlotsCuda, RefusesWhatIsPackedForAnotherModelOrDoesNotFit) {
  const LoraGeometry geometry = geometry_of(2);
  LoraSlots slots = make(geometry, 2, LoraSlots::adapter_bytes(geometry, 16));
  RandomLora lora(geometry, random_);
  lora.add_all(16);
  const Packed packed(geometry, lora);
  LoraGeometry wider = geometry;
  wider.outputs[3] = 96;
  RandomLora other(wider, random_);
  other.add_all(16);
  const Result<void> refused = slots.load(0, Packed(wider, other).adapter());
  ASSERT_FALSE(refused);
  EXPECT_THAT(refused.error().message, HasSubstr("layer 0 o maps 64 to 96"));
  ASSERT_TRUE(slots.load(0, packed.adapter()));
  const Result<void> full = slots.load(1, packed.adapter());
  ASSERT_FALSE(full);
  EXPECT_THAT(full.error().message, HasSubstr("out of adapter memory"));
  EXPECT_EQ(slots.used_bytes(), LoraSlots::adapter_bytes(geometry, 16));
  expect_adapter(slots, geometry, 0, lora);
}

TEST_F(LoraSlotsCuda, LeavesASlotEmptyThatTheDeviceDoesNotFillInTime) {
  const LoraGeometry geometry = geometry_of(2);
  Result<LoraSlots> slots = LoraSlots::make(geometry, 2, 4 << 20, {}, std::chrono::milliseconds(5));
  ASSERT_TRUE(slots) << slots.error().message;
  RandomLora lora(geometry, random_);
  lora.add_all(16);
  const Packed packed(geometry, lora);
  {
    HeldStream held(slots->stream());
    EXPECT_THAT(refusal(*slots, 0, lora.adapter()), HasSubstr("has not ended what it was given"));
    EXPECT_THAT(slots->load(1, packed.adapter()).error().message, HasSubstr("has not ended an earlier copy"));
    slots->clear(0);
    EXPECT_EQ(slots->used_bytes(), 0U);
    EXPECT_EQ(slots->ranks()[0], 0);
    held.release();
    slots->stream().synchronize();
  }
  // A load may take longer than the limit here, which then says so again.
  while (!slots->load(0, lora.adapter())) slots->stream().synchronize();
  while (!slots->load(1, packed.adapter())) slots->stream().synchronize();
  expect_adapter(*slots, geometry, 0, lora);
  expect_adapter(*slots, geometry, 1, lora);
}

TEST_F(LoraSlotsCuda, LoadsWhileStepsRunOnTheOtherSlots) {
  const LoraGeometry geometry = geometry_of(2);
  LoraSlots slots = make(geometry, 2, 4 << 20);
  RandomLora resident(geometry, random_);
  resident.add_all(24);
  ASSERT_TRUE(slots.load(0, resident.adapter()));
  const HalfTensor x = random_halves(3 * 64, Dtype::f16, random_);
  const std::vector<float> alone = product(slots, geometry, 1, 0, {0, 0, -1}, x);
  std::vector<RandomLora> others;
  for (const int32_t rank : {64, 5, 33}) {
    others.emplace_back(geometry, random_);
    others.back().add_all(rank);
  }
  std::atomic<bool> done{false};
  std::atomic<int> failures{0};
  std::thread loader([&] {
    if (!use_device(0)) failures++;
    for (int i = 0; i < usual_or_few(60, 8); i++) {
      if (!slots.load(1, others[static_cast<size_t>(i % 3)].adapter())) failures++;
      if (i % 4 == 3) slots.clear(1);
    }
    if (!slots.load(1, others[2].adapter())) failures++;
    done = true;
  });
  int steps = 0;
  for (; !done || steps < usual_or_few(50, 4); steps++) {
    const std::vector<float> again = product(slots, geometry, 1, 0, {0, 0, -1}, x);
    EXPECT_EQ(again, alone);
  }
  loader.join();
  EXPECT_EQ(failures, 0);
  expect_adapter(slots, geometry, 0, resident);
  expect_adapter(slots, geometry, 1, others[2]);
}

}  // namespace
}  // namespace lorikeet::kernels
