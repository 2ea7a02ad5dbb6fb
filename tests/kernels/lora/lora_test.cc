#include "kernels/lora/lora.h"

#include <gtest/gtest.h>

#include "tests/kernels/base/random_data.h"
#include "tests/tolerance.h"

namespace lorikeet::kernels {
namespace {

using tests::random_floats;
using tests::worst_difference;

struct Pair {
  std::vector<float> a, b, factor;
  LoraWeights weights;
  Pair(int32_t rank, int32_t inputs, int32_t outputs, bool dora, std::mt19937& random)
      : a(random_floats(static_cast<size_t>(rank * inputs), random)),
        b(random_floats(static_cast<size_t>(rank * outputs), random)),
        factor(random_floats(static_cast<size_t>(outputs), random)) {
    weights = {a.data(), b.data(), dora ? factor.data() : nullptr, rank, inputs, outputs, 0.37F};
  }
};

TEST(Lora, AgreesWithFloat64WhenEveryRowHasItsOwnAdapterAndRank) {
  std::mt19937 random(1);
  ThreadPool pool(2);
  const int32_t rows = 13, inputs = 70, outputs = 51;
  std::vector<Pair> pairs;
  for (const int32_t rank : {1, 3, 16, 33}) pairs.emplace_back(rank, inputs, outputs, rank == 3, random);
  std::vector<LoraGroup> groups;
  for (const Pair& pair : pairs) groups.push_back({pair.weights, {}});
  std::vector<int> pair_of_row;
  for (int32_t row = 0; row < rows; ++row) {
    pair_of_row.push_back(row % 5 - 1);  // every fifth row takes the base model
    if (pair_of_row.back() >= 0) groups[static_cast<size_t>(pair_of_row.back())].rows.push_back(row);
  }
  const auto x = random_floats(rows * inputs, random);
  const auto base = random_floats(rows * outputs, random);
  std::vector<double> want(base.begin(), base.end());
  for (int32_t row = 0; row < rows; ++row) {
    if (pair_of_row[row] < 0) continue;
    const LoraWeights& w = pairs[pair_of_row[row]].weights;
    for (int32_t n = 0; n < outputs; ++n) {
      double sum = 0;
      for (int32_t r = 0; r < w.rank; ++r) {
        double low = 0;
        for (int32_t k = 0; k < inputs; ++k) low += static_cast<double>(w.a[r * inputs + k]) * x[row * inputs + k];
        sum += low * w.b[r * w.outputs + n];
      }
      want[row * outputs + n] += w.scale * sum;
      if (w.dora_factor != nullptr) want[row * outputs + n] *= w.dora_factor[n];
    }
  }
  std::vector<float> y = base, plain = base;
  lora_cpu(groups, x.data(), inputs, y.data(), outputs, pool);
  lora_plain(groups, x.data(), inputs, plain.data(), outputs);
  // Two products in a row: the terms of the second are as large as the square root of the first's length.
  EXPECT_LT(worst_difference(y, want), 4 * tests::kFloat32Tolerance);
  EXPECT_LT(worst_difference(plain, want), 4 * tests::kFloat32Tolerance);

  std::vector<float> alone = base;
  for (const LoraGroup& group : groups) {
    for (const int32_t row : group.rows)
      lora_cpu({{group.weights, {row}}}, x.data(), inputs, alone.data(), outputs, pool);
  }
  EXPECT_EQ(alone, y);
}

}  // namespace
}  // namespace lorikeet::kernels
