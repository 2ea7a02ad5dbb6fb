// Products of int4 weights and activations in 8 bits, against float64 with the same rounding, on every way to multiply
// bytes that this machine has.
#include "kernels/int4/int8_gemm.h"

#include <gtest/gtest.h>

#include "kernels/int4/int8_inputs.h"
#include "tests/kernels/base/random_data.h"
#include "tests/tolerance.h"

namespace lorikeet::kernels {
namespace {

using tests::random_floats;
using tests::random_int4;
using tests::worst_difference;

// What a group of 32 inputs becomes: multiples of a 127th of the largest. Ties are as rare as exact halves.
std::vector<double> rounded(const std::vector<double>& x) {
  std::vector<double> result;
  for (size_t g = 0; g < x.size(); g += 32) {
    double largest = 0;
    for (size_t i = g; i < g + 32; ++i) largest = std::max(largest, std::abs(x[i]));
    for (size_t i = g; i < g + 32; ++i) {
      result.push_back(largest == 0 ? 0 : std::nearbyint(x[i] * 127 / largest) * largest / 127);
    }
  }
  return result;
}

std::vector<double> reference(const Int4Weight& w, const std::vector<float>& x, int32_t m) {
  std::vector<double> y;
  for (int32_t j = 0; j < m; ++j) {
    std::vector<double> stored;
    for (int32_t k = 0; k < w.k; ++k) {
      const int32_t from = w.permutation.empty() ? k : w.permutation[k];
      stored.push_back(from < 0 ? 0 : x[j * w.x_size + from]);
    }
    stored = rounded(stored);
    for (int32_t n = 0; n < w.n; ++n) {
      double sum = 0;
      for (int32_t run = 0; run < w.runs(); ++run) {
        for (int32_t k = w.run_begin[run]; k < w.run_begin[run + 1]; ++k) {
          const uint8_t byte = w.q[static_cast<size_t>(n) * w.k / 2 + k / 2];
          const int q = k % 2 == 0 ? byte & 15 : byte >> 4;
          sum += static_cast<double>(w.scale[run * w.n + n]) * (q - w.zero[run * w.n + n]) * stored[k];
        }
      }
      y.push_back(sum);
    }
  }
  return y;
}

std::vector<IntegerDot> ways() {
  std::vector<IntegerDot> found;
  for (const IntegerDot dot :
       {IntegerDot::avx2, IntegerDot::avx_vnni, IntegerDot::avx512_vnni, IntegerDot::neon, IntegerDot::neon_dotprod}) {
    if (has_integer_dot(dot)) found.push_back(dot);
  }
  return found;
}

std::vector<float> product(const Int4Weight& w, const std::vector<float>& x, int32_t m, ThreadPool& pool,
                           IntegerDot dot) {
  std::vector<float> y(static_cast<size_t>(m * w.n), NAN);
  const Int4Product one = {w, y.data(), w.n};
  int8_gemm_cpu({&one, 1}, x.data(), m, pool, dot);
  return y;
}

TEST(Int8Gemm, AgreesWithFloat64OfTheSameRounding) {
  std::mt19937 random(1);
  ThreadPool pool(2);
  for (int round = 0; round < 24; ++round) {
    std::vector<int32_t> runs(1 + random() % 6);
    for (int32_t& run : runs) run = 32 * static_cast<int32_t>(1 + random() % 9);
    const auto w = random_int4(static_cast<int32_t>(1 + random() % 40), runs, round % 3 == 0, random);
    const auto m = static_cast<int32_t>(1 + random() % (round % 5 == 0 ? 60 : 11));
    const auto x = random_floats(static_cast<size_t>(m * w.x_size), random);
    const auto want = reference(w, x, m);
    std::vector<float> plain(want.size(), NAN);
    int8_gemm_plain(w, x.data(), m, plain.data(), w.n);
    EXPECT_LT(worst_difference(plain, want), tests::kFloat32Tolerance);
    for (const IntegerDot dot : ways()) {
      EXPECT_LT(worst_difference(product(w, x, m, pool, dot), want), tests::kFloat32Tolerance) << name_of(dot);
    }
  }
}

TEST(Int8Gemm, GivesARowTheSameBitsInAnyBatchOnAnyNumberOfThreadsAndInEveryWay) {
  std::mt19937 random(2);
  ThreadPool one(1), three(3);
  for (const std::vector<int32_t>& runs : {std::vector<int32_t>{128, 96, 160, 1024, 224}, {32, 32}, {1088}}) {
    const auto w = random_int4(69, runs, runs.size() > 2, random);
    const int32_t m = 103;
    const auto x = random_floats(static_cast<size_t>(m * w.x_size), random);
    std::vector<float> first;
    for (const IntegerDot dot : ways()) {
      const std::vector<float> whole = product(w, x, m, one, dot);
      if (first.empty()) first = whole;
      EXPECT_EQ(whole, first) << name_of(dot);
      for (const int32_t size : {1, 2, 3, 5, 8, 97}) {
        std::vector<float> parts;
        for (int32_t j = 0; j < m; j += size) {
          const int32_t rows = std::min(size, m - j);
          const std::vector<float> some(x.begin() + j * w.x_size, x.begin() + (j + rows) * w.x_size);
          const std::vector<float> part = product(w, some, rows, three, dot);
          parts.insert(parts.end(), part.begin(), part.end());
        }
        EXPECT_EQ(parts, whole) << size << " rows, " << name_of(dot);
      }
    }
  }
}

TEST(Int8Gemm, HoldsTheLargestSumsThatNibblesAndBytesCanHave) {
  ThreadPool pool(1);
  Int4Weight w;
  w.n = 3;
  w.k = w.x_size = 256;
  w.run_begin = {0, 128, 256};
  w.q.assign(3 * 128, 0xff);
  w.scale.assign(6, 1);
  w.zero = {0, 15, 8, 0, 15, 8};
  for (const float value : {1.0F, -1.0F}) {
    const std::vector<float> x(256, value);
    for (const IntegerDot dot : ways()) {
      const std::vector<float> y = product(w, x, 1, pool, dot);
      EXPECT_NEAR(y[0], 256 * 15 * value, 1e-2) << name_of(dot);
      EXPECT_NEAR(y[1], 0, 1e-2) << name_of(dot);
      EXPECT_NEAR(y[2], 256 * 7 * value, 1e-2) << name_of(dot);
    }
  }
}

TEST(RoundToInt8, TakesTheLargestAs127AndZerosAsZero) {
  std::vector<float> x(kInt8Group, 0.0F);
  int8_t q[kInt8Group];
  EXPECT_EQ(round_to_int8(x.data(), q), 0);
  EXPECT_EQ(q[5], 0);
  x[3] = -254;
  x[4] = 3;     // 1.5: to the even 2
  x[5] = 5;     // 2.5: to the even 2
  x[6] = -127;  // -63.5: to the even -64
  EXPECT_EQ(round_to_int8(x.data(), q), 2);
  EXPECT_EQ(q[3], -127);
  EXPECT_EQ(q[4], 2);
  EXPECT_EQ(q[5], 2);
  EXPECT_EQ(q[6], -64);
  EXPECT_EQ(q[0], 0);
}

}  // namespace
}  // namespace lorikeet::kernels
