// What becomes of B (A x): SiLU of completed gates, the delta alone, logits in float; and x from a kernel that counts.
#include "kernels/layer/rms_norm_cuda.h"
#include "kernels/layer/silu_mul_cuda.h"
#include "tests/kernels/lora/lora_fixture.h"

namespace lorikeet::kernels {
namespace {

class LoraOutputsCuda : public LoraCuda {};

TEST_F(LoraOutputsCuda, TakesXFromAnEarlierKernelThatCountsItsBlocks) {
  make_slots(small_geometry(Dtype::f16), 12);
  load_mix();
  for (const size_t rows : sizes<size_t>({1, 5, 64, 90}, {5, 66})) {
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

TEST_F(LoraOutputsCuda, CompletesGateAndUpBeforeTheActivation) {
  for (const Dtype dtype : kDtypes) {
    for (const int32_t outputs : {264, 44}) {
      LoraGeometry geometry = small_geometry(dtype);
      geometry.outputs[kGate] = geometry.outputs[kGate + 1] = outputs;
      make_slots(geometry, 12);
      const std::vector<RandomLora> adapters = load_mix();
      for (const size_t rows : sizes<size_t>({1, 12, 64, 90}, {12, 66})) {
        const std::vector<int32_t> slots = random_slots(rows);
        Operands o = operands(linear(kGateUp, 0), slots);
        const std::vector<uint16_t> untouched = to_host<uint16_t>(o.y_device);
        const std::vector<uint16_t> activated = run_silu(o, rows);
        const std::vector<double> pairs = reference(adapters, kGateUp, 0, o, slots);
        std::vector<double> expected;
        for (size_t row = 0; row < rows; row++) {
          const double* gate = &pairs[row * static_cast<size_t>(2 * outputs)];
          for (int32_t n = 0; n < outputs; n++)
            expected.push_back(gate[n] / (1 + std::exp(-gate[n])) * gate[outputs + n]);
        }
        EXPECT_TRUE(near_reference(to_values(activated, dtype), expected, tolerance_of(dtype)))
            << dtype_name(dtype) << " outputs " << outputs << " rows " << rows;
        EXPECT_EQ(to_host<uint16_t>(o.y_device), untouched);
      }
    }
  }
}

TEST_F(LoraOutputsCuda, ActivatesARowToTheSameBitsAloneAndInAnyBatch) {
  for (const Dtype dtype : kDtypes) {
    make_slots(small_geometry(dtype), 12);
    load_mix();
    const LoraLinear of = linear(kGateUp, 0);
    const size_t most = usual_or_few(3000, 150);
    const std::vector<int32_t> slots = random_slots(most);
    Operands all = operands(of, slots);
    const std::vector<uint16_t> together = run_silu(all, most);
    for (const size_t rows : sizes<size_t>({1, 8, 40, 64, 65, 700}, {8, 65})) {
      const std::vector<size_t> chosen = choose(rows, most);
      Operands some = subset(all, slots, chosen);
      EXPECT_EQ(run_silu(some, rows), rows_of(together, chosen, of.outputs[0]))
          << dtype_name(dtype) << " rows " << rows;
    }
  }
}

TEST_F(LoraOutputsCuda, ActivatesRowsOfTheBaseModelAsTheirOwnKernelDoes) {
  for (const Dtype dtype : kDtypes) {
    make_slots(small_geometry(dtype), 2);
    load(0, uniform(16));
    const LoraLinear of = linear(kGateUp, 0);
    const auto outputs = static_cast<size_t>(of.outputs[0]);
    for (const size_t rows : {3, 90}) {
      std::vector<int32_t> slots(rows, -1);
      slots[1] = 0;
      Operands o = operands(of, slots);
      const float unusual[] = {0.0F, 6e4F, -6e4F, 1e-7F, -1e-7F, INFINITY, -INFINITY, -90.0F, 20.0F};
      for (size_t i = 0; i < std::size(unusual); i++) o.y.stored[5 * i] = to_stored(unusual[i], dtype);
      place(o, of, slots);
      const DeviceBuffer expected = poisoned(rows * outputs * 2);
      SiluMulArgs silu;
      silu.gate = o.y_device.data();
      silu.up = o.y_device.as<uint16_t>() + outputs;
      silu.stride = o.y_stride;
      silu.out = expected.data();
      silu.dtype = dtype;
      silu.tokens = static_cast<int32_t>(rows);
      silu.width = of.outputs[0];
      silu_mul_cuda(silu, stream_);
      std::vector<uint16_t> theirs = to_host<uint16_t>(expected);
      std::vector<uint16_t> ours = run_silu(o, rows);
      const auto begin = static_cast<ptrdiff_t>(outputs);  // of the row with an adapter
      theirs.erase(theirs.begin() + begin, theirs.begin() + 2 * begin);
      ours.erase(ours.begin() + begin, ours.begin() + 2 * begin);
      EXPECT_EQ(ours, theirs) << dtype_name(dtype) << " rows " << rows;
    }
  }
}

TEST_F(LoraOutputsCuda, GivesTheDeltaAloneToABaseProductThatAddsIt) {
  for (const Dtype dtype : kDtypes) {
    make_slots(small_geometry(dtype), 12);
    const std::vector<RandomLora> adapters = load_mix();
    for (const size_t rows : sizes<size_t>({1, 30, 100}, {30, 66})) {
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

TEST_F(LoraOutputsCuda, AddsTheDeltaOfLmHeadToLogitsInFloat) {
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

}  // namespace
}  // namespace lorikeet::kernels
