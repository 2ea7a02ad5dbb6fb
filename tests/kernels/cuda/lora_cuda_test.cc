#include "kernels/lora_cuda.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <memory>
#include <numeric>

#include "kernels/rms_norm_cuda.h"
#include "tests/kernels/cuda/random_lora.h"

namespace lorikeet::kernels {
namespace {

constexpr int32_t kQ = 0, kO = 3, kGate = 4, kDown = 6;
constexpr Dtype kDtypes[] = {Dtype::f16, Dtype::bf16};

struct Group {
  const char* name;
  int32_t first;  // projection
  int32_t count;
};
constexpr Group kQkv{"qkv", kQ, 3}, kOutput{"o", kO, 1}, kGateUp{"gate_up", kGate, 2}, kDownOnly{"down", kDown, 1};
constexpr Group kGroups[] = {kQkv, kOutput, kGateUp, kDownOnly};

LoraGeometry small_geometry(Dtype dtype) {
  LoraGeometry geometry;
  geometry.layers = 2;
  geometry.inputs = {200, 200, 200, 144, 200, 200, 2600};
  geometry.outputs = {144, 40, 72, 200, 264, 264, 200};
  geometry.hidden = 200;
  geometry.vocab = 61;
  geometry.lm_head_outputs = 97;
  geometry.max_rank = 512;
  geometry.dtype = dtype;
  return geometry;
}

class LoraCuda : public CudaTest {
 protected:
  void make_slots(const LoraGeometry& geometry, int32_t slots, uint64_t bytes = 64 << 20) {
    geometry_ = geometry;
    Result<LoraSlots> made = LoraSlots::make(geometry, slots, bytes);
    if (!made) throw std::runtime_error(made.error().message);
    slots_ = std::make_unique<LoraSlots>(std::move(*made));
  }
  void load(int32_t slot, const RandomLora& lora) {
    const Result<void> loaded = slots_->load(slot, lora.adapter());
    if (!loaded) throw std::runtime_error(loaded.error().message);
  }
  RandomLora uniform(int32_t rank, bool dora = false) {
    RandomLora lora(geometry_, random_);
    lora.add_all(rank, dora);
    return lora;
  }

  LoraProducts make_products(int32_t rows) const {
    Result<LoraProducts> products = LoraProducts::make(rows, max_inputs(), geometry_.max_rank);
    if (!products) throw std::runtime_error(products.error().message);
    return std::move(*products);
  }
  int32_t max_inputs() const {
    return std::max(geometry_.hidden, *std::max_element(geometry_.inputs.begin(), geometry_.inputs.end()));
  }
  LoraLinear linear(const Group& group, int32_t layer) const {
    LoraLinear result;
    result.first_entry = slots_->entry(layer, group.first);
    result.projections = group.count;
    result.inputs = geometry_.inputs[static_cast<size_t>(group.first)];
    for (int32_t i = 0; i < group.count; i++) {
      result.outputs[static_cast<size_t>(i)] = geometry_.outputs[static_cast<size_t>(group.first + i)];
    }
    return result;
  }
  static int32_t width(const LoraLinear& linear) {
    return std::accumulate(linear.outputs.begin(), linear.outputs.end(), 0);
  }

  LoraRowPlan row_plan(int32_t rows) const { return LoraRowPlan(rows, slots_->slots(), geometry_.max_rank); }
  DeviceBuffer describe(const std::vector<int32_t>& slots) {
    const LoraRowPlan plan = row_plan(static_cast<int32_t>(slots.size()));
    std::vector<unsigned char> host(plan.bytes());
    host.resize(plan.write(slots, slots_->ranks(), host.data()));
    const DeviceBuffer used = to_device(host);
    DeviceBuffer all = poisoned(plan.bytes());
    copy_on_device(all.data(), used.data(), used.bytes(), stream_);
    stream_.synchronize();
    return all;
  }

  // A product's operands on the device, with gaps behind the rows.
  struct Operands {
    HalfTensor x, y;
    int64_t x_stride, y_stride;
    DeviceBuffer x_device, y_device, description;
    LoraArgs args;
  };
  Operands operands(const LoraLinear& linear, const std::vector<int32_t>& slots, int32_t y_gap = 8) {
    Operands o;
    const size_t rows = slots.size();
    o.x = random_halves(rows * static_cast<size_t>(linear.inputs), geometry_.dtype, random_);
    o.y = random_halves(rows * static_cast<size_t>(width(linear)), geometry_.dtype, random_);
    o.x_stride = linear.inputs + 8;
    o.y_stride = width(linear) + y_gap;
    place(o, linear, slots);
    return o;
  }
  void place(Operands& o, const LoraLinear& linear, const std::vector<int32_t>& slots) {
    o.x_device = to_device(padded(o.x.stored, slots.size(), o.x_stride));
    o.y_device = to_device(padded(o.y.stored, slots.size(), o.y_stride));
    o.description = describe(slots);
    o.args.table = slots_->table();
    o.args.rows = row_plan(static_cast<int32_t>(slots.size()))
                      .on_device(o.description.data(), static_cast<int32_t>(slots.size()));
    o.args.linear = linear;
    o.args.dtype = o.args.y_dtype = geometry_.dtype;
    o.args.x = o.x_device.data();
    o.args.x_stride = o.x_stride;
    o.args.y = o.y_device.data();
    o.args.y_stride = o.y_stride;
  }
  std::vector<uint16_t> padded(const std::vector<uint16_t>& values, size_t rows, int64_t stride) const {
    std::vector<uint16_t> result(rows * static_cast<size_t>(stride), to_stored(NAN, geometry_.dtype));
    const size_t row = values.size() / rows;
    for (size_t i = 0; i < rows; i++) std::copy_n(&values[i * row], row, &result[i * static_cast<size_t>(stride)]);
    return result;
  }
  template <class T>
  static std::vector<T> unpadded(const std::vector<T>& values, size_t rows, int64_t stride, int32_t width) {
    std::vector<T> result;
    for (size_t i = 0; i < rows; i++) {
      const auto begin = values.begin() + static_cast<ptrdiff_t>(i) * stride;
      result.insert(result.end(), begin, begin + width);
    }
    return result;
  }
  std::vector<uint16_t> run(const Operands& o, size_t rows) {
    LoraProducts products = make_products(static_cast<int32_t>(rows));
    products.shrink(o.args, stream_);
    products.expand(o.args, stream_);
    return unpadded(to_host<uint16_t>(o.y_device), rows, o.y_stride, width(o.args.linear));
  }

  // f * (y + scale * B (A x)) of all rows: adapters[slot] in double precision, every `step`-th output of a projection.
  std::vector<double> reference(const std::vector<RandomLora>& adapters, const Group& group, int32_t layer,
                                const Operands& o, const std::vector<int32_t>& slots, int32_t step = 1) const {
    std::vector<double> expected;
    const LoraLinear all = linear(group, layer);
    for (size_t row = 0; row < slots.size(); row++) {
      const float* x = &o.x.values[row * static_cast<size_t>(all.inputs)];
      const float* y = &o.y.values[row * static_cast<size_t>(width(all))];
      for (int32_t p = 0; p < group.count; p++) {
        std::vector<double> delta;
        const LoraWeights* w =
            slots[row] >= 0 ? &adapters[static_cast<size_t>(slots[row])].of(layer, group.first + p) : nullptr;
        if (w != nullptr && w->rank > 0) delta = lora_delta(*w, x, step);
        const int32_t outputs = all.outputs[static_cast<size_t>(p)];
        for (int32_t n = 0; n < outputs; n += step) {
          double value = y[n];
          if (!delta.empty()) value += delta[static_cast<size_t>(n / step)];
          if (!delta.empty() && w->dora_factor != nullptr) value *= w->dora_factor[n];
          expected.push_back(value);
        }
        y += outputs;
      }
    }
    return expected;
  }

  // Every `step`-th output of every projection.
  std::vector<float> picked(const std::vector<uint16_t>& y, const LoraLinear& linear, size_t rows, int32_t step) const {
    std::vector<float> result;
    size_t i = 0;
    for (size_t row = 0; row < rows; row++) {
      for (const int32_t outputs : linear.outputs) {
        for (int32_t n = 0; n < outputs; n++, i++) {
          if (n % step == 0) result.push_back(to_value(y[i], geometry_.dtype));
        }
      }
    }
    return result;
  }

  std::vector<int32_t> random_slots(size_t rows) {
    std::vector<int32_t> slots;
    for (size_t i = 0; i < rows; i++) {
      slots.push_back(static_cast<int32_t>(random_() % static_cast<unsigned>(slots_->slots() + 1)) - 1);
    }
    return slots;
  }

  // Adapters of all kinds of ranks in the slots: odd ones, one that lacks projections, one with DoRA, an empty slot.
  std::vector<RandomLora> load_mix() {
    std::vector<RandomLora> adapters;
    for (const int32_t rank : {1, 3, 8, 16, 33, 64, 65, 129, 512}) adapters.push_back(uniform(rank));
    adapters.push_back(uniform(9, true));
    RandomLora sparse(geometry_, random_);
    sparse.add(0, kQ + 1, 24);
    sparse.add(0, kGate, 5, true);
    sparse.add(0, kGate + 1, 130);
    sparse.add(1, kDown, 2);
    adapters.push_back(std::move(sparse));
    adapters.emplace_back(geometry_, random_);
    for (size_t i = 0; i < adapters.size(); i++) load(static_cast<int32_t>(i), adapters[i]);
    return adapters;
  }

  LoraGeometry geometry_;
  std::unique_ptr<LoraSlots> slots_;
  std::mt19937 random_{11};
};

TEST_F(LoraCuda, TakesXFromAnEarlierKernelThatCountsItsBlocks) {
  make_slots(small_geometry(Dtype::f16), 12);
  load_mix();
  for (const size_t rows : {size_t{1}, size_t{5}, size_t{64}, size_t{90}}) {
    const LoraLinear qkv = linear(kQkv, 0), gate_up = linear(kGateUp, 0);
    const std::vector<int32_t> slots = random_slots(rows);
    const DeviceBuffer residual = to_device(random_floats(rows * static_cast<size_t>(qkv.inputs), random_));
    const DeviceBuffer weight = to_device(random_floats(static_cast<size_t>(qkv.inputs), random_));
    AddRmsNormArgs norm;
    norm.residual = residual.as<float>();
    norm.weight = weight.as<float>();
    norm.tokens = static_cast<int32_t>(rows);
    norm.width = qkv.inputs;
    Operands first = operands(qkv, slots), second = operands(gate_up, slots);
    LoraProducts products = make_products(static_cast<int32_t>(rows));
    // The x of both is the norm's, which runs before each.
    const auto outputs = [&](bool counted) {
      const DeviceBuffer x = poisoned(rows * static_cast<size_t>(qkv.inputs) * 2);
      const DeviceBuffer activated = poisoned(rows * static_cast<size_t>(gate_up.outputs[0]) * 2);
      const DeviceBuffer counters = zeroed(3 * sizeof(uint32_t));
      place(first, qkv, slots);
      place(second, gate_up, slots);
      norm.out = x.data();
      first.args.x = second.args.x = x.data();
      first.args.x_stride = second.args.x_stride = qkv.inputs;
      second.args.silu_out = activated.data();
      second.args.silu_stride = gate_up.outputs[0];
      uint32_t* count = counted ? counters.as<uint32_t>() : nullptr;
      first.args.x_done = count;
      second.args.x_done = counted ? count + 1 : nullptr;
      second.args.x_blocks = first.args.x_blocks = norm.tokens;
      second.args.done = counted ? count + 2 : nullptr;
      norm.done = count;
      add_rms_norm_cuda(norm, stream_);
      products.shrink(first.args, stream_);
      products.expand(first.args, stream_);
      norm.done = counted ? count + 1 : nullptr;
      add_rms_norm_cuda(norm, stream_);
      products.shrink(second.args, stream_);
      const int32_t blocks = products.expand(second.args, stream_);
      std::vector<uint16_t> all = to_host<uint16_t>(first.y_device);
      const std::vector<uint16_t> silu = to_host<uint16_t>(activated);
      all.insert(all.end(), silu.begin(), silu.end());
      if (counted) {
        EXPECT_EQ(to_host<uint32_t>(counters),
                  (std::vector<uint32_t>{static_cast<uint32_t>(rows), static_cast<uint32_t>(rows),
                                         static_cast<uint32_t>(blocks)}));
      }
      return all;
    };
    const std::vector<uint16_t> expected = outputs(false);
    EXPECT_EQ(outputs(true), expected) << rows << " rows";
  }
}

TEST_F(LoraCuda, AgreesWithFloat64ForAnyMixOfAdaptersAndRanks) {
  for (const Dtype dtype : kDtypes) {
    make_slots(small_geometry(dtype), 12);
    const std::vector<RandomLora> adapters = load_mix();
    for (const size_t rows : {1, 2, 7, 16, 33, 64, 65, 150}) {
      const std::vector<int32_t> slots = random_slots(rows);
      for (const Group& group : kGroups) {
        const int32_t layer = static_cast<int32_t>(rows % 2);
        const Operands o = operands(linear(group, layer), slots);
        const std::vector<double> expected = reference(adapters, group, layer, o, slots);
        EXPECT_TRUE(near_reference(to_values(run(o, rows), dtype), expected, tolerance_of(dtype)))
            << dtype_name(dtype) << " " << group.name << " rows " << rows;
      }
    }
  }
}

TEST_F(LoraCuda, AgreesWithFloat64WhenAllRowsTakeOneAdapter) {
  for (const Dtype dtype : kDtypes) {
    make_slots(small_geometry(dtype), 1);
    for (const int32_t rank : {1, 20, 64, 200}) {
      std::vector<RandomLora> adapters;
      adapters.push_back(uniform(rank));
      load(0, adapters[0]);
      for (const size_t rows : {1, 5, 17, 64, 65, 97, 300}) {
        const std::vector<int32_t> slots(rows, 0);
        const Operands o = operands(linear(kQkv, 1), slots);
        EXPECT_TRUE(
            near_reference(to_values(run(o, rows), dtype), reference(adapters, kQkv, 1, o, slots), tolerance_of(dtype)))
            << dtype_name(dtype) << " rank " << rank << " rows " << rows;
      }
    }
  }
}

TEST_F(LoraCuda, AgreesWithFloat64AtTheShapesOf14B) {
  for (const Dtype dtype : kDtypes) {
    LoraGeometry geometry;
    geometry.layers = 1;
    geometry.inputs = {5120, 5120, 5120, 5120, 5120, 5120, 13824};
    geometry.outputs = {5120, 1024, 1024, 5120, 13824, 13824, 5120};
    geometry.hidden = 5120;
    geometry.max_rank = 512;
    geometry.dtype = dtype;
    make_slots(geometry, 3, 256 << 20);
    std::vector<RandomLora> adapters;
    for (const int32_t rank : {16, 64, 147}) adapters.push_back(uniform(rank));
    for (int32_t i = 0; i < 3; i++) load(i, adapters[static_cast<size_t>(i)]);
    for (const size_t rows : {1, 9, 70}) {
      const std::vector<int32_t> slots = random_slots(rows);
      for (const Group& group : kGroups) {
        const Operands o = operands(linear(group, 0), slots);
        const int32_t step = 101;
        EXPECT_TRUE(near_reference(picked(run(o, rows), linear(group, 0), rows, step),
                                   reference(adapters, group, 0, o, slots, step), tolerance_of(dtype)))
            << dtype_name(dtype) << " " << group.name << " rows " << rows;
      }
    }
  }
}

TEST_F(LoraCuda, TakesOutputsThatAreNotAlignedToAnything) {
  for (const Dtype dtype : kDtypes) {
    LoraGeometry geometry = small_geometry(dtype);
    geometry.outputs = {45, 3, 34, 1, 44, 44, 77};
    make_slots(geometry, 12);
    const std::vector<RandomLora> adapters = load_mix();
    for (const size_t rows : {5, 80}) {
      const std::vector<int32_t> slots = random_slots(rows);
      for (const Group& group : kGroups) {
        const Operands o = operands(linear(group, 0), slots, 3);
        const std::vector<double> expected = reference(adapters, group, 0, o, slots);
        EXPECT_TRUE(near_reference(to_values(run(o, rows), dtype), expected, tolerance_of(dtype)))
            << dtype_name(dtype) << " " << group.name << " rows " << rows;
        const std::vector<uint16_t> y = to_host<uint16_t>(o.y_device);
        for (size_t row = 0; row < rows; row++) {
          const size_t gap = (row + 1) * static_cast<size_t>(o.y_stride) - 3;
          EXPECT_TRUE(std::isnan(to_value(y[gap], dtype))) << "written behind row " << row;
        }
      }
    }
  }
}

TEST_F(LoraCuda, GivesARowTheSameBitsAloneAndInAnyBatch) {
  for (const Dtype dtype : kDtypes) {
    make_slots(small_geometry(dtype), 12);
    load_mix();
    const size_t most = 200;
    const std::vector<int32_t> slots = random_slots(most);
    for (const Group& group : kGroups) {
      const LoraLinear of = linear(group, 0);
      const Operands all = operands(of, slots);
      const std::vector<uint16_t> together = run(all, most);
      // Rows `first` and the `rows - 1` behind it, in another order.
      for (const size_t rows : {1, 2, 15, 40, 64, 65, 130}) {
        const size_t first = random_() % (most - rows + 1);
        std::vector<size_t> chosen(rows);
        std::iota(chosen.begin(), chosen.end(), first);
        std::shuffle(chosen.begin(), chosen.end(), random_);
        Operands some;
        some.x_stride = all.x_stride;
        some.y_stride = all.y_stride;
        std::vector<int32_t> some_slots;
        const auto inputs = static_cast<size_t>(of.inputs);
        const auto outputs = static_cast<size_t>(width(of));
        std::vector<uint16_t> expected;
        for (const size_t row : chosen) {
          some_slots.push_back(slots[row]);
          some.x.stored.insert(some.x.stored.end(), &all.x.stored[row * inputs], &all.x.stored[row * inputs] + inputs);
          some.y.stored.insert(some.y.stored.end(), &all.y.stored[row * outputs],
                               &all.y.stored[row * outputs] + outputs);
          expected.insert(expected.end(), &together[row * outputs], &together[row * outputs] + outputs);
        }
        place(some, of, some_slots);
        EXPECT_EQ(run(some, rows), expected) << dtype_name(dtype) << " " << group.name << " rows " << rows;
      }
    }
  }
}

TEST_F(LoraCuda, CompletesGateAndUpBeforeTheActivation) {
  for (const Dtype dtype : kDtypes) {
    for (const int32_t outputs : {264, 44}) {
      LoraGeometry geometry = small_geometry(dtype);
      geometry.outputs[kGate] = geometry.outputs[kGate + 1] = outputs;
      make_slots(geometry, 12);
      const std::vector<RandomLora> adapters = load_mix();
      for (const size_t rows : {1, 12, 64, 90}) {
        const std::vector<int32_t> slots = random_slots(rows);
        Operands o = operands(linear(kGateUp, 0), slots);
        const DeviceBuffer out = poisoned(rows * static_cast<size_t>(outputs) * 2);
        o.args.silu_out = out.data();
        o.args.silu_stride = outputs;
        const std::vector<uint16_t> untouched = to_host<uint16_t>(o.y_device);
        run(o, rows);
        const std::vector<double> pairs = reference(adapters, kGateUp, 0, o, slots);
        std::vector<double> expected;
        for (size_t row = 0; row < rows; row++) {
          const double* gate = &pairs[row * static_cast<size_t>(2 * outputs)];
          for (int32_t n = 0; n < outputs; n++)
            expected.push_back(gate[n] / (1 + std::exp(-gate[n])) * gate[outputs + n]);
        }
        EXPECT_TRUE(near_reference(to_values(to_host<uint16_t>(out), dtype), expected, tolerance_of(dtype)))
            << dtype_name(dtype) << " outputs " << outputs << " rows " << rows;
        EXPECT_EQ(to_host<uint16_t>(o.y_device), untouched);
      }
    }
  }
}

TEST_F(LoraCuda, GivesTheDeltaAloneToABaseProductThatAddsIt) {
  for (const Dtype dtype : kDtypes) {
    make_slots(small_geometry(dtype), 12);
    const std::vector<RandomLora> adapters = load_mix();
    for (const size_t rows : {1, 30, 100}) {
      const std::vector<int32_t> slots = random_slots(rows);
      const LoraLinear of = linear(kGateUp, 0);
      Operands o = operands(of, slots);
      o.args.add = false;
      const std::vector<float> y = to_values(run(o, rows), dtype);
      std::vector<double> expected;
      for (size_t row = 0; row < rows; row++) {
        for (int32_t p = 0; p < 2; p++) {
          const auto outputs = static_cast<size_t>(of.outputs[static_cast<size_t>(p)]);
          std::vector<double> delta(outputs, 0.0);
          if (slots[row] >= 0) {
            const LoraWeights& w = adapters[static_cast<size_t>(slots[row])].of(0, kGate + p);
            if (w.rank > 0) delta = lora_delta(w, &o.x.values[row * static_cast<size_t>(of.inputs)]);
          } else {
            for (size_t n = 0; n < outputs; n++) delta[n] = o.y.values[expected.size() + n];
          }
          expected.insert(expected.end(), delta.begin(), delta.end());
        }
      }
      EXPECT_TRUE(near_reference(y, expected, tolerance_of(dtype))) << dtype_name(dtype) << " rows " << rows;
    }
  }
}

TEST_F(LoraCuda, AddsTheDeltaOfLmHeadToLogitsInFloat) {
  for (const Dtype dtype : kDtypes) {
    make_slots(small_geometry(dtype), 2);
    std::vector<RandomLora> adapters;
    for (const int32_t rank : {7, 40}) {
      adapters.emplace_back(geometry_, random_);
      adapters.back().add_lm_head(rank);
    }
    for (int32_t i = 0; i < 2; i++) load(i, adapters[static_cast<size_t>(i)]);
    for (const size_t rows : {3, 70}) {
      std::vector<int32_t> slots = random_slots(rows);
      LoraLinear of;
      of.first_entry = slots_->lm_head_entry();
      of.projections = 1;
      of.inputs = geometry_.hidden;
      of.outputs = {geometry_.lm_head_outputs};
      Operands o = operands(of, slots);
      const std::vector<float> logits = random_floats(rows * 97, random_);
      const DeviceBuffer y = to_device(logits);
      o.args.y = y.data();
      o.args.y_stride = 97;
      o.args.y_dtype = Dtype::f32;
      run(o, rows);
      std::vector<double> expected(logits.begin(), logits.end());
      for (size_t row = 0; row < rows; row++) {
        if (slots[row] < 0) continue;
        const auto delta = lora_delta(adapters[static_cast<size_t>(slots[row])].lm_head(),
                                      &o.x.values[row * static_cast<size_t>(of.inputs)]);
        for (size_t n = 0; n < 97; n++) expected[row * 97 + n] += delta[n];
      }
      EXPECT_TRUE(near_reference(to_host<float>(y), expected, tests::kFloat32Tolerance))
          << dtype_name(dtype) << " rows " << rows;
    }
  }
}

TEST_F(LoraCuda, ReplaysOneGraphWhileAdaptersComeAndGo) {
  make_slots(small_geometry(Dtype::bf16), 3, 16 << 20);
  const size_t rows = 9;
  const LoraLinear of = linear(kQkv, 1);
  Operands o = operands(of, std::vector<int32_t>(rows, -1));
  const LoraRowPlan plan = row_plan(static_cast<int32_t>(rows));
  LoraProducts products = make_products(static_cast<int32_t>(rows));
  const Result<Graph> graph = Graph::capture(stream_, [&] {
    products.shrink(o.args, stream_);
    products.expand(o.args, stream_);
  });
  ASSERT_TRUE(graph) << graph.error().message;
  std::vector<RandomLora> adapters;
  for (int32_t i = 0; i < 3; i++) adapters.emplace_back(geometry_, random_);
  std::vector<unsigned char> host(plan.bytes());
  for (const int32_t rank : {0, 16, 5, 0, 200, 64, 1}) {
    const auto slot = static_cast<size_t>(random_() % 3);
    adapters[slot] = rank > 0 ? uniform(rank, rank == 5) : RandomLora(geometry_, random_);
    if (rank > 0) {
      load(static_cast<int32_t>(slot), adapters[slot]);
    } else {
      slots_->clear(static_cast<int32_t>(slot));
    }
    const std::vector<int32_t> slots = random_slots(rows);
    const uint64_t used = plan.write(slots, slots_->ranks(), host.data());
    copy_to_device(o.description.data(), host.data(), used, stream_);
    const std::vector<uint16_t> y = padded(o.y.stored, rows, o.y_stride);
    copy_to_device(o.y_device.data(), y.data(), o.y_device.bytes(), stream_);
    graph->launch(stream_);
    EXPECT_TRUE(
        near_reference(to_values(unpadded(to_host<uint16_t>(o.y_device), rows, o.y_stride, width(of)), Dtype::bf16),
                       reference(adapters, kQkv, 1, o, slots), tests::kBfloat16Tolerance))
        << "rank " << rank;
  }
}

TEST_F(LoraCuda, FollowsTheKernelBeforeItEvenWhenTheyOverlap) {
  // A chain in which every product reads what the one before it wrote: o maps 200 to 200.
  LoraGeometry geometry = small_geometry(Dtype::f16);
  geometry.inputs[kO] = 200;
  make_slots(geometry, 2);
  for (int32_t i = 0; i < 2; i++) load(i, uniform(16 + 24 * i));
  const std::vector<int32_t> slots = {0, 1, 1, -1, 0};
  Operands o = operands(linear(kOutput, 0), slots, 8);
  const std::vector<uint16_t> first = padded(o.x.stored, 5, o.x_stride);
  LoraProducts products = make_products(5);
  const auto chain = [&](bool wait) {
    copy_to_device(o.x_device.data(), first.data(), o.x_device.bytes(), stream_);
    fill_bytes(o.y_device.data(), 0, o.y_device.bytes(), stream_);
    LoraArgs args = o.args;
    for (int i = 0; i < 24; i++) {
      args.x = i % 2 == 0 ? o.x_device.data() : o.y_device.data();
      args.y = i % 2 == 0 ? o.y_device.data() : o.x_device.data();
      products.shrink(args, stream_);
      if (wait) stream_.synchronize();
      products.expand(args, stream_);
      if (wait) stream_.synchronize();
    }
    return to_host<uint16_t>(o.x_device);
  };
  const std::vector<uint16_t> one_by_one = chain(true);
  for (int repeat = 0; repeat < 20; repeat++) ASSERT_EQ(one_by_one, chain(false));
}

}  // namespace
}  // namespace lorikeet::kernels
