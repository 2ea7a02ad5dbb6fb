// LoRA inside of the int4 product, against the kernels of its own and against float64.
#include "kernels/int4/base/int4_lora.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <memory>
#include <numeric>

#include "kernels/int4/decode/int4_decode.h"
#include "kernels/int4/int4_gemm_cuda.h"
#include "tests/kernels/base/cuda_test.h"
#include "tests/kernels/int4/random_int4.h"
#include "tests/kernels/int4/tested_device.h"
#include "tests/kernels/lora/lora_fixture.h"

namespace lorikeet::kernels {
namespace {

constexpr int32_t kMostTokens = 8;

// Outputs of q, k and v that share tiles, and inputs whose slices are not whole and lie across the parts of k.
LoraGeometry fused_geometry(Dtype dtype) {
  LoraGeometry geometry;
  geometry.layers = 1;
  geometry.inputs = {416, 416, 416, 160, 416, 416, 3456};
  const int32_t activated = usual_or_few(2600, 200);
  geometry.outputs = {200, 40, 77, 416, activated, activated, 416};
  geometry.hidden = 416;
  geometry.max_rank = kMostFusedRank;
  geometry.dtype = dtype;
  return geometry;
}

class Int4LoraCuda : public LoraCuda {
 protected:
  Int4LoraCuda() { random_.seed(5); }

  void make(const LoraGeometry& geometry, int32_t slots) {
    make_slots(geometry, slots, 128 << 20);
    Result<Int4LoraScratch> scratch = Int4LoraScratch::make(max_inputs(), geometry.max_rank, stream_);
    if (!scratch) throw std::runtime_error(scratch.error().message);
    scratch_ = std::move(*scratch);
    products_ = std::make_unique<LoraProducts>(make_products(kMostTokens));
    Result<Int4Gemm> gemm =
        Int4Gemm::make(kMostTokens, 2 * *std::max_element(geometry.outputs.begin(), geometry.outputs.end()),
                       max_inputs(), tested_device());
    if (!gemm) throw std::runtime_error(gemm.error().message);
    gemm_ = std::make_unique<Int4Gemm>(std::move(*gemm));
  }

  // Odd ranks, the highest one, one that lacks projections, one with DoRA, an empty slot.
  std::vector<RandomLora> load_fusable_mix() {
    std::vector<RandomLora> adapters;
    for (const int32_t rank : {1, 8, 16, 33, 64, 128}) adapters.push_back(uniform(rank));
    adapters.push_back(uniform(9, true));
    RandomLora sparse(geometry_, random_);
    sparse.add(0, 1, 24);
    sparse.add(0, 4, 5, true);
    sparse.add(0, 5, 110);
    adapters.push_back(std::move(sparse));
    adapters.emplace_back(geometry_, random_);
    for (size_t i = 0; i < adapters.size(); i++) load(static_cast<int32_t>(i), adapters[i]);
    return adapters;
  }
  // The base weights of a group.
  struct Base {
    std::vector<Int4Weight> parts;
    PackedInt4Weight packed;
  };
  Base random_base(const Group& group, Int4Kind kind) {
    Base base;
    for (int32_t i = 0; i < group.count; i++) {
      const auto p = static_cast<size_t>(group.first + i);
      base.parts.push_back(random_int4(geometry_.outputs[p], geometry_.inputs[p], kind, random_));
    }
    std::vector<const Int4Weight*> parts;
    for (const Int4Weight& part : base.parts) parts.push_back(&part);
    Result<PackedInt4Weight> packed = group.first == kGateUp.first
                                          ? PackedInt4Weight::pack_pair(*parts[0], *parts[1], stream_)
                                          : PackedInt4Weight::pack(parts, stream_);
    if (!packed) throw std::runtime_error(packed.error().message);
    base.packed = std::move(*packed);
    return base;
  }
  LoraLinear linear(const Group& group) const { return LoraCuda::linear(group, 0); }
  int32_t width(const Group& group, bool silu) const {
    return silu ? linear(group).outputs[0] : LoraCuda::width(linear(group));
  }

  LoraRows rows_on_device(const DeviceBuffer& description, size_t rows) const {
    const auto count = static_cast<int32_t>(rows);
    return row_plan(count).on_device(description.data(), count);
  }
  Int4Lora lora_args(const Group& group, const DeviceBuffer& description, size_t rows, int32_t turn) const {
    return {slots_->table(), rows_on_device(description, rows), linear(group),
            scratch_.turn(turn, static_cast<int32_t>(rows))};
  }
  bool takes(const Base& base, const Group& group, size_t rows) const {
    return gemm_->takes_lora(base.packed, static_cast<int32_t>(rows), linear(group), geometry_.max_rank);
  }
  Int4GemmArgs gemm_args(const DeviceBuffer& x, int64_t x_stride, size_t rows) const {
    Int4GemmArgs args;
    args.x = x.data();
    args.x_stride = x_stride;
    args.dtype = geometry_.dtype;
    args.m = static_cast<int32_t>(rows);
    return args;
  }

  std::vector<uint16_t> fused(const Base& base, const Group& group, const std::vector<uint16_t>& x,
                              const std::vector<int32_t>& slots, bool silu) {
    const size_t rows = slots.size();
    const DeviceBuffer x_device = to_device(x);
    const DeviceBuffer description = describe(slots);
    const DeviceBuffer y = poisoned(rows * static_cast<size_t>(width(group, silu)) * 2);
    Int4GemmArgs args = gemm_args(x_device, base.packed.x_size, rows);
    args.y = y.data();
    args.y_stride = width(group, silu);
    args.silu_mul = silu;
    for (int32_t turn = 0; turn < 2; turn++) {  // the fewest of a step
      const Int4Lora lora = lora_args(group, description, rows, turn);
      args.lora = &lora;
      gemm_->run(base.packed, args, stream_);
    }
    return to_host<uint16_t>(y);
  }
  std::vector<uint16_t> apart(const Base& base, const Group& group, const std::vector<uint16_t>& x,
                              const std::vector<int32_t>& slots, bool silu) {
    const size_t rows = slots.size();
    const DeviceBuffer x_device = to_device(x);
    const DeviceBuffer description = describe(slots);
    const DeviceBuffer y = poisoned(rows * static_cast<size_t>(width(group, false)) * 2);
    const DeviceBuffer activated = poisoned(rows * static_cast<size_t>(width(group, true)) * 2);
    Int4GemmArgs args = gemm_args(x_device, base.packed.x_size, rows);
    args.y = y.data();
    args.y_stride = width(group, false);
    gemm_->run(base.packed, args, stream_);
    LoraArgs lora;
    lora.table = slots_->table();
    lora.rows = rows_on_device(description, rows);
    lora.linear = linear(group);
    lora.dtype = lora.y_dtype = geometry_.dtype;
    lora.x = x_device.data();
    lora.x_stride = base.packed.x_size;
    lora.y = y.data();
    lora.y_stride = args.y_stride;
    if (silu) {
      lora.silu_out = activated.data();
      lora.silu_stride = width(group, true);
    }
    products_->shrink(lora, stream_);
    products_->expand(lora, stream_);
    return to_host<uint16_t>(silu ? activated : y);
  }
  HalfTensor random_x(const Base& base, size_t rows) {
    return random_halves(rows * static_cast<size_t>(base.packed.x_size), geometry_.dtype, random_);
  }

  Int4LoraScratch scratch_;
  std::unique_ptr<LoraProducts> products_;
  std::unique_ptr<Int4Gemm> gemm_;
};

class Int4LoraCudaOfDtype : public Int4LoraCuda, public ::testing::WithParamInterface<Dtype> {};

TEST_P(Int4LoraCudaOfDtype, GivesTheBitsOfTheKernelsOfItsOwn) {
  make(fused_geometry(GetParam()), 9);
  load_fusable_mix();
  for (const Int4Kind kind : {Int4Kind{128}, Int4Kind{32, true}, Int4Kind{128, true}, Int4Kind{32}}) {
    for (const Group& group : kGroups) {
      const Base base = random_base(group, kind);
      for (const int32_t tokens : sizes({1, 2, 3, 5, 8}, {1, 5})) {
        const auto rows = static_cast<size_t>(tokens);
        ASSERT_TRUE(takes(base, group, rows));
        for (const bool silu : {false, true}) {
          if (silu && !base.packed.paired) continue;
          for (int repeat = 0; repeat < usual_or_few(3, 1); repeat++) {
            std::vector<int32_t> slots = random_slots(rows);
            if (repeat == 1) std::fill(slots.begin(), slots.end(), slots[0]);
            const HalfTensor x = random_x(base, rows);
            EXPECT_EQ(fused(base, group, x.stored, slots, silu), apart(base, group, x.stored, slots, silu))
                << group.name << " rows " << rows << " SiLU " << silu;
          }
        }
      }
    }
  }
}

INSTANTIATE_TEST_SUITE_P(, Int4LoraCudaOfDtype, ::testing::ValuesIn(kDtypes),
                         [](const auto& test) { return dtype_name(test.param); });

TEST_F(Int4LoraCuda, GivesTheBitsOfTheKernelsOfItsOwnAtTheShapesOf14B) {
  LoraGeometry geometry = geometry_of_14b(Dtype::f16, 64);
  if (takes_few_sizes()) geometry.outputs = {256, 128, 128, 256, 256, 256, 256};
  make(geometry, 8);
  for (int32_t i = 0; i < 8; i++) load(i, uniform(i < 6 ? 16 : 64));
  int compared = 0;
  for (const Group& group : kGroups) {
    const Base base = random_base(group, {128});
    for (const size_t rows : sizes<size_t>({1, 2, 4, 8}, {1, 4})) {
      if (!takes(base, group, rows)) continue;
      for (const int32_t first : {0, 7}) {  // of rank 16; of rank 64
        std::vector<int32_t> slots(rows);
        for (size_t row = 0; row < rows; row++) slots[row] = (first + static_cast<int32_t>(row)) % 8;
        const HalfTensor x = random_x(base, rows);
        const bool silu = base.packed.paired;
        EXPECT_EQ(fused(base, group, x.stored, slots, silu), apart(base, group, x.stored, slots, silu))
            << group.name << " rows " << rows << " from slot " << first;
        compared++;
      }
    }
  }
  EXPECT_GT(compared, 0) << "no product took the adapters";
}

TEST_F(Int4LoraCuda, AgreesWithFloat64) {
  for (const Dtype dtype : kDtypes) {
    make(fused_geometry(dtype), 9);
    const std::vector<RandomLora> adapters = load_fusable_mix();
    for (const Group& group : kGroups) {
      const Base base = random_base(group, {128});
      for (const size_t rows : {1, 6}) {
        const std::vector<int32_t> slots = random_slots(rows);
        const HalfTensor x = random_x(base, rows);
        const bool silu = base.packed.paired;
        std::vector<double> expected;
        for (size_t row = 0; row < rows; row++) {
          const float* x_row = &x.values[row * static_cast<size_t>(base.packed.x_size)];
          std::vector<double> outputs;
          for (int32_t p = 0; p < group.count; p++) {
            const Int4Weight& part = base.parts[static_cast<size_t>(p)];
            std::vector<double> delta;
            const LoraWeights* w = nullptr;
            if (slots[row] >= 0) w = &adapters.at(static_cast<size_t>(slots[row])).of(0, group.first + p);
            if (w != nullptr && w->rank > 0) delta = lora_delta(*w, x_row);
            for (int32_t n = 0; n < part.n; n++) {
              const std::vector<double> weights = int4_row(part, n);
              double value = std::inner_product(weights.begin(), weights.end(), x_row, 0.0);
              if (!delta.empty()) value += delta[static_cast<size_t>(n)];
              if (!delta.empty() && w->dora_factor != nullptr) value *= w->dora_factor[n];
              outputs.push_back(value);
            }
          }
          if (silu) {
            const size_t half = outputs.size() / 2;
            for (size_t n = 0; n < half; n++) outputs[n] = outputs[n] / (1 + std::exp(-outputs[n])) * outputs[half + n];
            outputs.resize(half);
          }
          expected.insert(expected.end(), outputs.begin(), outputs.end());
        }
        EXPECT_TRUE(near_reference(to_values(fused(base, group, x.stored, slots, silu), dtype), expected,
                                   (silu ? 2 : 1) * tolerance_of(dtype)))
            << dtype_name(dtype) << " " << group.name << " rows " << rows;
      }
    }
  }
}

TEST_F(Int4LoraCuda, GivesARowTheSameBitsAloneAndInAnyBatch) {
  for (const Dtype dtype : kDtypes) {
    make(fused_geometry(dtype), 9);
    load_fusable_mix();
    for (const Group& group : kGroups) {
      const Base base = random_base(group, {128});
      const std::vector<int32_t> slots = random_slots(kMostTokens);
      const HalfTensor x = random_x(base, kMostTokens);
      const bool silu = base.packed.paired;
      const std::vector<uint16_t> together = fused(base, group, x.stored, slots, silu);
      const auto inputs = static_cast<ptrdiff_t>(base.packed.x_size);
      const ptrdiff_t outputs = width(group, silu);
      for (ptrdiff_t row = 0; row < kMostTokens; row += usual_or_few(1, 5)) {
        const std::vector<uint16_t> x_row(x.stored.begin() + row * inputs, x.stored.begin() + (row + 1) * inputs);
        const std::vector<uint16_t> expected(together.begin() + row * outputs, together.begin() + (row + 1) * outputs);
        EXPECT_EQ(fused(base, group, x_row, {slots[static_cast<size_t>(row)]}, silu), expected)
            << dtype_name(dtype) << " " << group.name << " row " << row;
      }
    }
  }
}

TEST_F(Int4LoraCuda, ReplaysOneGraphWhileAdaptersComeAndGo) {
  make(fused_geometry(Dtype::bf16), 3);
  const Base base = random_base(kQkv, {128});
  for (const size_t rows : {1, 6}) {
    const HalfTensor x = random_x(base, rows);
    const DeviceBuffer x_device = to_device(x.stored);
    const DeviceBuffer description = describe(std::vector<int32_t>(rows, -1));
    const DeviceBuffer y = poisoned(rows * static_cast<size_t>(width(kQkv, false)) * 2);
    Int4GemmArgs args = gemm_args(x_device, base.packed.x_size, rows);
    args.y = y.data();
    args.y_stride = width(kQkv, false);
    const Result<Graph> graph = Graph::capture(stream_, [&] {
      for (int32_t turn = 0; turn < 3; turn++) {
        const Int4Lora lora = lora_args(kQkv, description, rows, turn);
        args.lora = &lora;
        gemm_->run(base.packed, args, stream_);
      }
    });
    ASSERT_TRUE(graph) << graph.error().message;
    std::vector<unsigned char> host(row_plan(static_cast<int32_t>(rows)).bytes());
    for (const int32_t rank : sizes({0, 16, 5, 0, 100, 64, 1}, {0, 16, 100})) {
      const auto slot = static_cast<int32_t>(random_() % 3);
      if (rank > 0) {
        load(slot, uniform(rank, rank == 5));
      } else {
        slots_->clear(slot);
      }
      const std::vector<int32_t> slots = random_slots(rows);
      const uint64_t used = row_plan(static_cast<int32_t>(rows)).write(slots, slots_->ranks(), host.data());
      copy_to_device(description.data(), host.data(), used, stream_);
      graph->launch(stream_);
      EXPECT_EQ(to_host<uint16_t>(y), apart(base, kQkv, x.stored, slots, false)) << rows << " rows, rank " << rank;
    }
  }
}

TEST_F(Int4LoraCuda, FollowsTheKernelBeforeItEvenWhenTheyOverlap) {
  // A chain in which every product reads what the one before it wrote, and takes the scratch from it. The large one has
  // a block on every processor.
  for (const int32_t width : sizes({416, 5120}, {416})) {
    LoraGeometry geometry = width == 416 ? fused_geometry(Dtype::f16) : geometry_of_14b(Dtype::f16, 64);
    geometry.inputs[3] = width;
    make(geometry, 2);
    for (int32_t i = 0; i < 2; i++) load(i, uniform(16 + 24 * i));
    const Base base = random_base(kOutput, {128});
    for (const std::vector<int32_t>& slots : {std::vector{0, 1, 1, -1, 0}, {0}, {1}, {-1}}) {
      const size_t rows = slots.size();
      if (!takes(base, kOutput, rows)) continue;
      const HalfTensor first = random_x(base, rows);
      const DeviceBuffer description = describe(slots);
      const int products = usual_or_few(24, 4);
      const auto tokens = static_cast<int32_t>(rows);
      const Int4LoraSize size = {1, rows_on_device(description, rows).max_rank};
      const bool counts = gemm_->takes_x_for_lora(base.packed, tokens, geometry.dtype, size);
      EXPECT_TRUE(counts || rows == 1);
      enum class By { wait, kernel_in_front, counter };
      const auto chain = [&](By by) {
        const bool wait = by == By::wait;
        const DeviceBuffer states[] = {to_device(first.stored), to_device(first.stored)};
        const DeviceBuffer counters = to_device(std::vector<uint32_t>(static_cast<size_t>(products)));
        for (int i = 0; i < products; i++) {
          Int4Lora lora = lora_args(kOutput, description, rows, i);
          if (by == By::counter) {
            lora.done = counters.as<uint32_t>() + i;
            if (i > 0) lora.x_done = lora.done - 1;
            lora.x_blocks = gemm_->lora_blocks(base.packed, tokens, geometry.dtype, size);
          }
          Int4GemmArgs args = gemm_args(states[i % 2], width, rows);
          args.y = states[1 - i % 2].data();
          args.y_stride = width;
          args.lora = &lora;
          args.follows_product = !wait && i > 0;
          gemm_->run(base.packed, args, stream_);
          if (wait) stream_.synchronize();
        }
        return to_host<uint16_t>(states[0]);
      };
      const std::vector<uint16_t> one_by_one = chain(By::wait);
      for (int repeat = 0; repeat < usual_or_few(20, 2); repeat++) {
        ASSERT_EQ(one_by_one, chain(By::kernel_in_front))
            << width << " outputs, " << rows << " tokens, slot " << slots[0];
        if (!counts) continue;
        ASSERT_EQ(one_by_one, chain(By::counter)) << width << " outputs, " << rows << " tokens, slot " << slots[0];
      }
    }
  }
}

TEST_F(Int4LoraCuda, LeavesHighRanksAndPermutedInputsToOtherKernels) {
  make(fused_geometry(Dtype::f16), 1);
  const Base plain = random_base(kOutput, {128});
  EXPECT_TRUE(gemm_->takes_lora(plain.packed, 1, linear(kOutput), kMostFusedRank));
  EXPECT_FALSE(gemm_->takes_lora(plain.packed, 1, linear(kOutput), kMostFusedRank + 1));
  EXPECT_FALSE(gemm_->takes_lora(plain.packed, kMostTokens + 1, linear(kOutput), 16));
  const Base permuted = random_base(kOutput, {128, false, true});
  EXPECT_FALSE(gemm_->takes_lora(permuted.packed, 1, linear(kOutput), 16));
  const Base qkv = random_base(kQkv, {128});
  LoraLinear across_octets = linear(kQkv);
  across_octets.outputs[0] -= 4;
  across_octets.outputs[2] += 4;
  EXPECT_TRUE(gemm_->takes_lora(qkv.packed, 1, linear(kQkv), 16));
  EXPECT_FALSE(gemm_->takes_lora(qkv.packed, 1, across_octets, 16));
}

}  // namespace
}  // namespace lorikeet::kernels
