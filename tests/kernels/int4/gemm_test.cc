// int4 and dense products against float64, on every instruction set that this machine has.
#include <gtest/gtest.h>

#include <cmath>
#include <cstring>
#include <numeric>

#include "kernels/dense/dense_gemm.h"
#include "kernels/int4/int4_gemm.h"
#include "kernels/int4/int4_product_simd.h"
#include "tests/kernels/base/instruction_sets.h"
#include "tests/kernels/base/random_data.h"
#include "tests/tolerance.h"

namespace lorikeet::kernels {
namespace {

using tests::instruction_sets;
using tests::random_floats;
using tests::random_int4;
using tests::worst_difference;

std::vector<double> int4_reference(const Int4Weight& w, const std::vector<float>& x, int32_t m) {
  std::vector<double> y(static_cast<size_t>(m) * static_cast<size_t>(w.n), 0.0);
  for (int32_t j = 0; j < m; ++j) {
    for (int32_t n = 0; n < w.n; ++n) {
      double sum = 0;
      for (int32_t run = 0; run < w.runs(); ++run) {
        for (int32_t k = w.run_begin[run]; k < w.run_begin[run + 1]; ++k) {
          const int32_t from = w.permutation.empty() ? k : w.permutation[k];
          if (from < 0) continue;
          const uint8_t byte = w.q[static_cast<size_t>(n) * w.k / 2 + k / 2];
          const int q = k % 2 == 0 ? byte & 15 : byte >> 4;
          sum += static_cast<double>(w.scale[run * w.n + n]) * (q - w.zero[run * w.n + n]) * x[j * w.x_size + from];
        }
      }
      y[static_cast<size_t>(j) * w.n + n] = sum;
    }
  }
  return y;
}

TEST(Int4Gemm, AgreesWithFloat64OverRandomShapes) {
  std::mt19937 random(1);
  ThreadPool pool(2);
  for (int round = 0; round < 30; ++round) {
    std::vector<int32_t> runs(1 + random() % 6);
    for (int32_t& run : runs) run = 32 * static_cast<int32_t>(1 + random() % 5);
    const auto w = random_int4(static_cast<int32_t>(1 + random() % 40), runs, round % 3 == 0, random);
    const auto m = static_cast<int32_t>(1 + random() % (round % 5 == 0 ? 120 : 11));
    const auto x = random_floats(static_cast<size_t>(m * w.x_size), random);
    const auto want = int4_reference(w, x, m);
    std::vector<float> y(want.size(), NAN), plain(want.size(), NAN);
    int4_gemm_cpu(w, x.data(), m, y.data(), w.n, pool);
    int4_gemm_plain(w, x.data(), m, plain.data(), w.n);
    EXPECT_LT(worst_difference(y, want), tests::kFloat32Tolerance);
    EXPECT_LT(worst_difference(plain, want), tests::kFloat32Tolerance);
  }
}

TEST(Int4Gemm, GivesARowTheSameBitsInAnyBatchAndOnAnyNumberOfThreads) {
  std::mt19937 random(2);
  ThreadPool one(1), three(3);
  for (const std::vector<int32_t>& runs : {std::vector<int32_t>{128, 96, 160, 1024, 224}, {32, 32}, {1088}}) {
    const auto w = random_int4(69, runs, runs.size() > 2, random);
    const int32_t m = 203;
    const auto x = random_floats(static_cast<size_t>(m * w.x_size), random);
    for (const CpuIsa isa : instruction_sets()) {
      std::vector<float> whole(static_cast<size_t>(m * w.n)), part(whole.size());
      int4_gemm_cpu(w, x.data(), m, whole.data(), w.n, one, isa);
      for (int32_t size : {1, 2, 3, 4, 5, 8, 9, 97}) {
        for (int32_t j = 0; j < m; j += size) {
          int4_gemm_cpu(w, x.data() + j * w.x_size, std::min(size, m - j), part.data() + j * w.n, w.n, three, isa);
        }
        EXPECT_EQ(part, whole) << size << " rows, " << name_of(isa);
      }
    }
  }
}

TEST(Int4Gemm, AgreesOnEveryInstructionSet) {
  std::mt19937 random(3);
  ThreadPool pool(1);
  const auto w = random_int4(37, {128, 32, 64, 416}, false, random);
  for (const CpuIsa isa : instruction_sets()) {
    ASSERT_NE(int4_product_loop(isa), nullptr) << name_of(isa);
    for (const int32_t m : {1, 2, 3, 7, 13, 21}) {
      const auto x = random_floats(static_cast<size_t>(m * w.k), random);
      const auto want = int4_reference(w, x, m);
      std::vector<float> y(want.size(), NAN);
      int4_gemm_cpu(w, x.data(), m, y.data(), w.n, pool, isa);
      EXPECT_LT(worst_difference(y, want), tests::kFloat32Tolerance) << name_of(isa) << ", " << m << " rows";
    }
  }
}

TEST(Int4Gemm, KeepsItsPrecisionWhereInputsHaveAMeanOrOneIsAThousandTimesTheOthers) {
  std::mt19937 random(9);
  ThreadPool pool(1);
  const auto w = random_int4(64, std::vector<int32_t>(40, 128), false, random);
  for (const CpuIsa isa : instruction_sets()) {
    for (const float mean : {0.0F, 1.0F}) {
      for (const float largest : {1.0F, 1000.0F}) {
        std::normal_distribution<float> values(mean);
        std::vector<float> x(static_cast<size_t>(w.k)), y(static_cast<size_t>(w.n));
        for (float& value : x) value = values(random);
        x[777] = largest;
        std::vector<double> want = int4_reference(w, x, 1);
        int4_gemm_cpu(w, x.data(), 1, y.data(), w.n, pool, isa);
        const double root = std::sqrt(std::inner_product(want.begin(), want.end(), want.begin(), 0.0) / w.n);
        for (double& value : want) value /= root;
        for (float& value : y) value = static_cast<float>(value / root);
        EXPECT_LT(worst_difference(y, want), tests::kFloat32Tolerance) << name_of(isa) << ' ' << mean << ' ' << largest;
      }
    }
  }
}

TEST(Int4Gemm, GivesProductsOfOneInputTheBitsThatTheyHaveAlone) {
  std::mt19937 random(8);
  ThreadPool pool(3);
  const std::vector<int32_t> runs = {128, 96, 256};
  // The third has its own order of the inputs; outputs are no multiples of what threads share.
  std::vector<Int4Weight> weights = {random_int4(75, runs, false, random), random_int4(3, runs, false, random),
                                     random_int4(41, {64, 480}, true, random), random_int4(97, runs, false, random)};
  weights[2].x_size = weights[0].x_size;
  for (int32_t& from : weights[2].permutation) from = from >= weights[0].x_size ? -1 : from;
  for (const int32_t m : {1, 2, 70}) {
    const auto x = random_floats(static_cast<size_t>(m * weights[0].x_size), random);
    std::vector<std::vector<float>> together(weights.size());
    std::vector<Int4Product> products;
    for (size_t i = 0; i < weights.size(); ++i) {
      together[i].assign(static_cast<size_t>(m * weights[i].n), NAN);
      products.push_back({weights[i], together[i].data(), weights[i].n});
    }
    int4_gemm_cpu(products, x.data(), m, pool);
    for (size_t i = 0; i < weights.size(); ++i) {
      std::vector<float> alone(together[i].size(), NAN);
      int4_gemm_cpu(weights[i], x.data(), m, alone.data(), weights[i].n, pool);
      EXPECT_EQ(together[i], alone) << "weight " << i << ", " << m << " rows";
    }
  }
}

TEST(DenseGemm, AgreesWithFloat64ForEveryTypeAndUnalignedRows) {
  std::mt19937 random(4);
  ThreadPool pool(2);
  for (const Dtype dtype : {Dtype::f32, Dtype::f16, Dtype::bf16}) {
    for (int round = 0; round < 12; ++round) {
      const auto n = static_cast<int32_t>(1 + random() % 40), k = static_cast<int32_t>(1 + random() % 700);
      const auto m = static_cast<int32_t>(1 + random() % 12);
      std::vector<unsigned char> bytes(static_cast<size_t>(n * k) * size_of(dtype) + 1);
      for (size_t i = 0; i < static_cast<size_t>(n * k); ++i) {
        const float value = std::normal_distribution<float>()(random);
        const auto bits = std::bit_cast<uint32_t>(value);
        // Truncation to bf16; for fp16 a random finite pattern does as well.
        const auto sixteen = static_cast<uint16_t>(dtype == Dtype::bf16 ? bits >> 16 : 0x3000 + random() % 0x1400);
        std::memcpy(bytes.data() + 1 + i * size_of(dtype),
                    dtype == Dtype::f32 ? static_cast<const void*>(&bits) : &sixteen, size_of(dtype));
      }
      DenseWeight w;
      w.n = n;
      w.k = k;
      w.dtype = dtype;
      w.data = bytes.data() + 1;
      const auto x = random_floats(static_cast<size_t>(m * k), random);
      std::vector<double> want;
      for (int32_t j = 0; j < m; ++j) {
        for (int32_t i = 0; i < n; ++i) {
          double sum = 0;
          for (int32_t at = 0; at < k; ++at)
            sum += static_cast<double>(load_float(w.row(i), dtype, at)) * x[j * k + at];
          want.push_back(sum);
        }
      }
      std::vector<float> y(want.size(), NAN), plain(want.size(), NAN);
      dense_gemm_cpu(w, x.data(), k, m, y.data(), n, pool);
      dense_gemm_plain(w, x.data(), k, m, plain.data(), n);
      EXPECT_LT(worst_difference(y, want), tests::kFloat32Tolerance) << name_of(dtype);
      EXPECT_LT(worst_difference(plain, want), tests::kFloat32Tolerance) << name_of(dtype);
    }
  }
}

TEST(DenseGemm, GivesARowTheSameBitsInAnyBatch) {
  std::mt19937 random(5);
  ThreadPool pool(2);
  const int32_t n = 45, k = 1077, m = 101;
  const auto weights = random_floats(static_cast<size_t>(n * k), random);
  DenseWeight w;
  w.n = n;
  w.k = k;
  w.data = weights.data();
  const auto x = random_floats(static_cast<size_t>(m * k), random);
  std::vector<float> whole(static_cast<size_t>(m * n)), alone(whole.size());
  dense_gemm_cpu(w, x.data(), k, m, whole.data(), n, pool);
  for (const int32_t size : {1, 3, 8, 20}) {
    for (int32_t j = 0; j < m; j += size)
      dense_gemm_cpu(w, x.data() + j * k, k, std::min(size, m - j), alone.data() + j * n, n, pool);
    EXPECT_EQ(alone, whole) << size;
  }
}

}  // namespace
}  // namespace lorikeet::kernels
