// What the tests of LoRA's kernels on the device share: adapters in slots, operands, and the result in double
// precision.
#pragma once

#include <gtest/gtest.h>

#include <algorithm>
#include <memory>
#include <numeric>

#include "kernels/lora/lora_cuda.h"
#include "tests/kernels/lora/random_lora.h"

namespace lorikeet::kernels {

inline constexpr int32_t kQ = 0, kO = 3, kGate = 4, kDown = 6;
inline constexpr Dtype kDtypes[] = {Dtype::f16, Dtype::bf16};

struct Group {
  const char* name;
  int32_t first;  // projection
  int32_t count;
};
inline constexpr Group kQkv{"qkv", kQ, 3}, kOutput{"o", kO, 1}, kGateUp{"gate_up", kGate, 2},
    kDownOnly{"down", kDown, 1};
inline constexpr Group kGroups[] = {kQkv, kOutput, kGateUp, kDownOnly};

inline LoraGeometry small_geometry(Dtype dtype) {
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

// One layer without embedding and lm_head.
inline LoraGeometry geometry_of_14b(Dtype dtype, int32_t max_rank) {
  LoraGeometry geometry;
  geometry.layers = 1;
  geometry.inputs = {5120, 5120, 5120, 5120, 5120, 5120, 13824};
  geometry.outputs = {5120, 1024, 1024, 5120, 13824, 13824, 5120};
  geometry.hidden = 5120;
  geometry.max_rank = max_rank;
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
  // The operands of rows[chosen[0]], rows[chosen[1]] .. alone.
  Operands subset(const Operands& all, const std::vector<int32_t>& slots, const std::vector<size_t>& chosen) {
    Operands some;
    some.x_stride = all.x_stride;
    some.y_stride = all.y_stride;
    const LoraLinear& of = all.args.linear;
    std::vector<int32_t> some_slots;
    const auto append = [](std::vector<uint16_t>& to, const std::vector<uint16_t>& from, size_t row, int32_t width) {
      const auto begin = from.begin() + static_cast<ptrdiff_t>(row) * width;
      to.insert(to.end(), begin, begin + width);
    };
    for (const size_t row : chosen) {
      some_slots.push_back(slots[row]);
      append(some.x.stored, all.x.stored, row, of.inputs);
      append(some.y.stored, all.y.stored, row, width(of));
    }
    place(some, of, some_slots);
    return some;
  }
  // `rows` rows from anywhere among `all`, in any order.
  std::vector<size_t> choose(size_t rows, size_t all) {
    std::vector<size_t> chosen(rows);
    std::iota(chosen.begin(), chosen.end(), random_() % (all - rows + 1));
    std::shuffle(chosen.begin(), chosen.end(), random_);
    return chosen;
  }
  static std::vector<uint16_t> rows_of(const std::vector<uint16_t>& values, const std::vector<size_t>& chosen,
                                       int32_t width) {
    std::vector<uint16_t> result;
    for (const size_t row : chosen) {
      const auto begin = values.begin() + static_cast<ptrdiff_t>(row) * width;
      result.insert(result.end(), begin, begin + width);
    }
    return result;
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

  // silu(gate) * up of a product of two projections.
  std::vector<uint16_t> run_silu(Operands& o, size_t rows) {
    const int32_t outputs = o.args.linear.outputs[0];
    const DeviceBuffer out = poisoned(rows * static_cast<size_t>(outputs) * 2);
    o.args.silu_out = out.data();
    o.args.silu_stride = outputs;
    run(o, rows);
    return to_host<uint16_t>(out);
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
    for (const int32_t rank : sizes({1, 3, 8, 16, 33, 64, 65, 129, 512}, {1, 3, 8, 16, 33, 8, 65, 2, 129})) {
      adapters.push_back(uniform(rank));
    }
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

}  // namespace lorikeet::kernels
