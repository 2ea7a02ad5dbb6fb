// Random adapters for the tests of LoRA on the device, and what they do to a row, in double precision.
#pragma once

#include <cmath>
#include <deque>
#include <random>
#include <vector>

#include "kernels/lora/lora.h"
#include "kernels/lora/lora_slots.h"
#include "tests/kernels/base/cuda_test.h"

namespace lorikeet::kernels {

// The weights of an adapter are exact in `dtype`, so that the device computes with what the reference sees.
class RandomLora {
 public:
  RandomLora(const LoraGeometry& geometry, std::mt19937& random)
      : geometry_(geometry),
        random_(&random),
        pairs_(static_cast<size_t>(geometry.layers) * kLoraProjections),
        stored_(pairs_.size()) {}

  // The pairs point into floats_, whose content stays in place when it moves and would not when it is copied.
  RandomLora(RandomLora&&) = default;
  RandomLora& operator=(RandomLora&&) = default;
  RandomLora(const RandomLora&) = delete;

  // Gives a projection of a layer a pair whose A x and B v have about the size of x.
  void add(int32_t layer, int32_t projection, int32_t rank, bool dora = false) {
    const auto p = static_cast<size_t>(projection);
    const size_t place = static_cast<size_t>(layer) * kLoraProjections + p;
    pairs_[place] = pair(rank, geometry_.inputs[p], geometry_.outputs[p], dora);
    stored_[place] = stored(pairs_[place]);
  }
  void add_all(int32_t rank, bool dora = false) {
    for (int32_t layer = 0; layer < geometry_.layers; layer++) {
      for (int32_t p = 0; p < kLoraProjections; p++) add(layer, p, rank, dora);
    }
  }
  void add_embedding(int32_t rank) { embedding_ = pair(rank, geometry_.vocab, geometry_.hidden, false); }
  void add_lm_head(int32_t rank) { lm_head_ = pair(rank, geometry_.hidden, geometry_.lm_head_outputs, false); }

  LoraAdapter adapter() const { return {stored_, stored(embedding_), stored(lm_head_)}; }
  const LoraWeights& of(int32_t layer, int32_t projection) const {
    return pairs_[static_cast<size_t>(layer) * kLoraProjections + static_cast<size_t>(projection)];
  }
  const LoraWeights& embedding() const { return embedding_; }
  const LoraWeights& lm_head() const { return lm_head_; }

 private:
  static StoredLora stored(const LoraWeights& w) {
    return {w.a, w.b, Dtype::f32, Dtype::f32, w.dora_factor, w.rank, w.inputs, w.outputs, w.scale};
  }
  LoraWeights pair(int32_t rank, int32_t inputs, int32_t outputs, bool dora) {
    LoraWeights w;
    w.rank = rank;
    w.inputs = inputs;
    w.outputs = outputs;
    w.scale = 0.25F + 0.5F * static_cast<float>((*random_)() % 100) / 100;
    w.a = keep(static_cast<size_t>(rank) * static_cast<size_t>(inputs), 1 / std::sqrt(static_cast<float>(inputs)));
    w.b = keep(static_cast<size_t>(rank) * static_cast<size_t>(outputs), 1 / std::sqrt(static_cast<float>(rank)));
    if (dora) {
      floats_.push_back(random_floats(static_cast<size_t>(outputs), *random_, 0.3F, 1));
      w.dora_factor = floats_.back().data();
    }
    return w;
  }
  const float* keep(size_t count, float scale) {
    floats_.push_back(random_halves(count, geometry_.dtype, *random_, scale).values);
    return floats_.back().data();
  }

  LoraGeometry geometry_;
  std::mt19937* random_;
  std::deque<std::vector<float>> floats_;
  std::vector<LoraWeights> pairs_;  // b as PEFT stores it: [outputs, rank]
  std::vector<StoredLora> stored_;  // the same
  LoraWeights embedding_, lm_head_;
};

// scale * B (A x), every `step`-th output.
inline std::vector<double> lora_delta(const LoraWeights& w, const float* x, int32_t step = 1) {
  std::vector<double> v(static_cast<size_t>(w.rank));
  for (int32_t r = 0; r < w.rank; r++) {
    const float* a = w.a + static_cast<int64_t>(r) * w.inputs;
    for (int32_t k = 0; k < w.inputs; k++) v[static_cast<size_t>(r)] += static_cast<double>(a[k]) * x[k];
  }
  std::vector<double> delta;
  for (int32_t n = 0; n < w.outputs; n += step) {
    const float* b = w.b + static_cast<int64_t>(n) * w.rank;
    double sum = 0;
    for (int32_t r = 0; r < w.rank; r++) sum += b[r] * v[static_cast<size_t>(r)];
    delta.push_back(w.scale * sum);
  }
  return delta;
}

}  // namespace lorikeet::kernels
