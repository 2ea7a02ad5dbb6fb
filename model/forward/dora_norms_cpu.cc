#include "model/forward/dora_norms_cpu.h"

#include "kernels/int4/int4_gemm.h"

namespace lorikeet::model {
namespace {

// Row n of the base weight in the order of x.
void base_row(const LinearWeights& linear, int32_t n, std::vector<float>& stored, std::vector<float>& row) {
  if (const auto* dense = std::get_if<kernels::DenseWeight>(&linear.weight)) {
    row.resize(static_cast<size_t>(dense->k));
    for (size_t i = 0; i < row.size(); ++i) row[i] = kernels::load_float(dense->row(n), dense->dtype, i);
    return;
  }
  const kernels::Int4View int4 = *linear.int4();
  stored.resize(static_cast<size_t>(int4.k));
  kernels::dequantize_row(int4, n, stored.data());
  if (int4.permutation.empty()) {
    row = stored;
    return;
  }
  row.assign(static_cast<size_t>(int4.x_size), 0.0F);
  for (size_t i = 0; i < stored.size(); ++i) {
    // Weights of 8 bits are stored as two parts.
    if (int4.permutation[i] >= 0) row[static_cast<size_t>(int4.permutation[i])] += stored[i];
  }
}

std::vector<float> squared_norms(const LoraPair& pair, const LinearWeights& linear) {
  std::vector<float> norms(static_cast<size_t>(pair.outputs)), stored, row;
  const std::vector<float> a = pair.a.floats(), b = pair.b.floats();
  for (int32_t n = 0; n < pair.outputs; ++n) {
    base_row(linear, n, stored, row);
    double sum = 0;
    for (int32_t k = 0; k < pair.inputs; ++k) {
      float low_rank = 0;
      for (int32_t r = 0; r < pair.rank; ++r) {
        low_rank += b[static_cast<size_t>(n) * static_cast<size_t>(pair.rank) + static_cast<size_t>(r)] *
                    a[static_cast<size_t>(r) * static_cast<size_t>(pair.inputs) + static_cast<size_t>(k)];
      }
      const double w = static_cast<double>(row[static_cast<size_t>(k)]) + static_cast<double>(pair.scale) * low_rank;
      sum += w * w;
    }
    norms[static_cast<size_t>(n)] = static_cast<float>(sum);
  }
  return norms;
}

}  // namespace

std::vector<std::vector<float>> dora_squared_norms_cpu(const Adapter& part, const RankWeights& weights) {
  std::vector<std::vector<float>> norms;
  for (size_t layer = 0; layer < part.layers.size(); ++layer) {
    for (const Projection p : kProjections) {
      const auto& pair = part.layers[layer][static_cast<size_t>(p)];
      if (!pair) continue;
      norms.emplace_back();
      if (!pair->magnitude.empty()) norms.back() = squared_norms(*pair, weights.layers[layer].at(p));
    }
  }
  return norms;
}

}  // namespace lorikeet::model
