// Embedding, norms, rotary embedding and the MLP's gate against float64.
#include <gtest/gtest.h>

#include "kernels/layer/embedding.h"
#include "kernels/layer/rms_norm.h"
#include "kernels/layer/rope.h"
#include "kernels/layer/silu_mul.h"
#include "tests/kernels/base/random_data.h"
#include "tests/tolerance.h"

namespace lorikeet::kernels {
namespace {

using tests::kFloat32Tolerance;
using tests::random_floats;
using tests::worst_difference;

TEST(Embedding, TakesTheRowsOfTheIds) {
  const std::vector<float> table = {1, 2, 3, 4, 5, 6};
  DenseWeight weight;
  weight.n = 3;
  weight.k = 2;
  weight.data = table.data();
  const std::vector<int32_t> ids = {2, 0, 2};
  std::vector<float> out(6);
  embedding_cpu(weight, ids.data(), 3, out.data());
  EXPECT_EQ(out, (std::vector<float>{5, 6, 1, 2, 5, 6}));
}

TEST(RmsNorm, AgreesWithItsDefinition) {
  std::mt19937 random(1);
  const int32_t rows = 5, size = 77;
  auto residual = random_floats(rows * size, random);
  const auto delta = random_floats(rows * size, random), weight = random_floats(size, random);
  std::vector<double> want;
  for (int32_t r = 0; r < rows; ++r) {
    double squares = 0;
    for (int32_t i = 0; i < size; ++i)
      squares += std::pow(static_cast<double>(residual[r * size + i]) + delta[r * size + i], 2);
    for (int32_t i = 0; i < size; ++i) {
      want.push_back((static_cast<double>(residual[r * size + i]) + delta[r * size + i]) /
                     std::sqrt(squares / size + 1e-6) * weight[i]);
    }
  }
  std::vector<float> y(want.size(), NAN);
  add_rms_norm_cpu(residual.data(), delta.data(), weight.data(), 1e-6F, rows, size, y.data());
  EXPECT_LT(worst_difference(y, want), kFloat32Tolerance);
}

TEST(SiluMul, AgreesWithItsDefinition) {
  std::mt19937 random(2);
  const auto gate = random_floats(301, random, 4), up = random_floats(301, random);
  std::vector<double> want;
  for (size_t i = 0; i < gate.size(); ++i)
    want.push_back(gate[i] / (1 + std::exp(-static_cast<double>(gate[i]))) * up[i]);
  std::vector<float> y(gate.size(), NAN);
  std::vector<float> plain(gate.size(), NAN);
  ThreadPool pool(1);
  silu_mul_cpu(gate.data(), up.data(), 301, y.data(), pool);
  silu_mul_plain(gate.data(), up.data(), 301, plain.data());
  EXPECT_LT(worst_difference(y, want), kFloat32Tolerance);
  EXPECT_LT(worst_difference(plain, want), kFloat32Tolerance);
}

TEST(Rope, RotatesHalvesAgainstEachOther) {
  std::mt19937 random(3);
  const int32_t heads = 3, head_dim = 8, position = 37;
  const double base = 1e4;
  const auto inv_freq = rope_inverse_frequencies(head_dim, base);
  const auto x = random_floats(heads * head_dim, random);
  std::vector<double> want(x.size());
  for (int32_t h = 0; h < heads; ++h) {
    for (int32_t i = 0; i < head_dim / 2; ++i) {
      const double angle = position * std::pow(base, -2.0 * i / head_dim);
      const double a = x[h * head_dim + i], b = x[h * head_dim + head_dim / 2 + i];
      want[h * head_dim + i] = a * std::cos(angle) - b * std::sin(angle);
      want[h * head_dim + head_dim / 2 + i] = b * std::cos(angle) + a * std::sin(angle);
    }
  }
  std::vector<float> angles(head_dim), y = x;
  rope_angles_cpu(position, inv_freq.data(), head_dim, 1, angles.data());
  rope_cpu(y.data(), heads, head_dim, angles.data());
  EXPECT_LT(worst_difference(y, want), kFloat32Tolerance);
}

TEST(Rope, BlendsTheFrequenciesOfYarnBetweenDimensions23And40ForQwen) {
  const auto plain = rope_inverse_frequencies(128, 1e6);
  YarnParameters yarn;
  yarn.factor = 4;
  yarn.original_max_position = 32768;
  const auto scaled = rope_inverse_frequencies(128, 1e6, yarn);
  for (size_t i = 0; i < 64; ++i) {
    const double ratio = static_cast<double>(scaled[i]) / plain[i];
    if (i <= 23) {
      EXPECT_FLOAT_EQ(ratio, 1);
    } else if (i >= 40) {
      EXPECT_FLOAT_EQ(ratio, 0.25);
    } else {
      EXPECT_NEAR(ratio, 1 - 0.75 * (static_cast<double>(i) - 23) / 17, 1e-6);
    }
  }
}

TEST(Rope, BlendsTheFrequenciesOfYarnBetweenFractionsOfDimensionsWhereTheyAreNotTruncated) {
  YarnParameters yarn;
  yarn.factor = 4;
  yarn.original_max_position = 32768;
  yarn.truncate = false;
  const auto plain = rope_inverse_frequencies(128, 1e6), scaled = rope_inverse_frequencies(128, 1e6, yarn);
  const auto dimension = [](double rotations) {
    return 128 * std::log(32768 / (rotations * 2 * M_PI)) / (2 * std::log(1e6));
  };
  const double low = dimension(32), high = dimension(1);
  for (size_t i = 0; i < 64; ++i) {
    const double ramp = std::clamp((static_cast<double>(i) - low) / (high - low), 0.0, 1.0);
    EXPECT_NEAR(static_cast<double>(scaled[i]) / plain[i], 1 - 0.75 * ramp, 1e-6) << i;
  }
}

TEST(Rope, GivesQwenV1ItsNtkBasesAndLogNFactors) {
  const auto alpha = [](int32_t prompt) {
    return std::pow(dynamic_ntk_base(1e4, 128, prompt, 2048) / 1e4, 126.0 / 128.0);
  };
  EXPECT_NEAR(alpha(1), 1, 1e-9);
  EXPECT_NEAR(alpha(2048), 1, 1e-9);
  EXPECT_NEAR(alpha(2049), 3, 1e-9);
  EXPECT_NEAR(alpha(4096), 3, 1e-9);
  EXPECT_NEAR(alpha(4097), 7, 1e-9);
  EXPECT_EQ(log_n_factor(2047, 2048), 1);
  EXPECT_NEAR(log_n_factor(4095, 2048), std::log(4096.0) / std::log(2048.0), 1e-6);
}

}  // namespace
}  // namespace lorikeet::kernels
