// Random operands for kernel tests.
#pragma once

#include <algorithm>
#include <cmath>
#include <random>
#include <vector>

#include "kernels/int4/base/int4_weight.h"

namespace lorikeet::tests {

inline std::vector<float> random_floats(size_t count, std::mt19937& random, float scale = 1) {
  std::normal_distribution<float> normal(0, scale);
  std::vector<float> values(count);
  for (float& value : values) value = normal(random);
  return values;
}

// A weight with runs of the given lengths (multiples of 32); with act_order its inputs are shuffled, and some are
// padding.
inline kernels::Int4Weight random_int4(int32_t n, const std::vector<int32_t>& runs, bool act_order,
                                       std::mt19937& random) {
  kernels::Int4Weight weight;
  weight.n = n;
  weight.run_begin = {0};
  for (const int32_t run : runs) weight.run_begin.push_back(weight.run_begin.back() + run);
  weight.k = weight.run_begin.back();
  weight.x_size = weight.k;
  weight.q.resize(static_cast<size_t>(n) * static_cast<size_t>(weight.k) / 2);
  for (uint8_t& byte : weight.q) byte = static_cast<uint8_t>(random());
  for (size_t i = 0; i < runs.size() * static_cast<size_t>(n); ++i) {
    weight.scale.push_back(0.01F + 0.0001F * static_cast<float>(random() % 100));
    weight.zero.push_back(static_cast<uint8_t>(random() % 16));
  }
  if (act_order) {
    const int32_t padding = weight.k / 8;
    weight.x_size = weight.k - padding;
    for (int32_t k = 0; k < weight.k; ++k) weight.permutation.push_back(k < weight.x_size ? k : -1);
    std::shuffle(weight.permutation.begin(), weight.permutation.end(), random);
  }
  return weight;
}

// Whether two results are equal to a tolerance relative to max(1, |want|).
inline double worst_difference(const std::vector<float>& got, const std::vector<double>& want) {
  double worst = got.size() == want.size() ? 0 : INFINITY;
  for (size_t i = 0; i < std::min(got.size(), want.size()); ++i) {
    const double difference = std::abs(got[i] - want[i]) / std::max(1.0, std::abs(want[i]));
    worst = std::isnan(difference) ? INFINITY : std::max(worst, difference);
  }
  return worst;
}

}  // namespace lorikeet::tests
