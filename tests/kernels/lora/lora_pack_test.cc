#include <gtest/gtest.h>

#include <cmath>
#include <vector>

#include "kernels/lora/lora_layout.h"

namespace lorikeet::kernels::lora {
namespace {

// Element [i][j] of a matrix of n columns, exact in fp16 and never 0.
float element(int32_t i, int32_t j, int32_t n) {
  return static_cast<float>((i * n + j) % 2000 + 1);
}
std::vector<float> matrix(int32_t m, int32_t n) {
  std::vector<float> values;
  for (int32_t i = 0; i < m; i++) {
    for (int32_t j = 0; j < n; j++) values.push_back(element(i, j, n));
  }
  return values;
}

TEST(LoraPack, GivesEveryLaneEightInputsOfItsRank) {
  for (const int32_t rank : {1, 8, 13}) {
    const int32_t inputs = 72;
    const std::vector<float> a = matrix(rank, inputs);
    ASSERT_EQ(a_bytes(rank, inputs), static_cast<uint64_t>(rank_tiles(rank)) * 3 * 512);
    for (int32_t tile = 0; tile < rank_tiles(rank); tile++) {
      std::vector<uint16_t> out(a_tile_bytes(inputs) / 2, 0xffff);
      pack_a_tile(a.data(), Dtype::f32, rank, inputs, tile, Dtype::f16, out.data());
      for (int32_t block = 0; block < 3; block++) {
        for (int32_t lane = 0; lane < 32; lane++) {
          for (int32_t e = 0; e < 8; e++) {
            const int32_t r = tile * 8 + lane / 4;
            const int32_t k = block * 32 + lane % 4 * 8 + e;
            const float expected = r < rank && k < inputs ? element(r, k, inputs) : 0;
            ASSERT_EQ(half_to_float(out[static_cast<size_t>((block * 32 + lane) * 8 + e)]), expected);
          }
        }
      }
    }
  }
}

TEST(LoraPack, GivesEveryLaneTheRanksOfEightNeighbouringOutputs) {
  for (const int32_t rank : {2, 16, 19}) {
    const int32_t outputs = 70;
    const std::vector<float> b = matrix(outputs, rank);
    for (int32_t tile = 0; tile < output_tiles(outputs); tile++) {
      std::vector<uint16_t> out(b_tile_bytes(rank) / 2, 0xffff);
      pack_b_tile(b.data(), Dtype::f32, rank, outputs, tile, Dtype::f16, out.data());
      for (int32_t block = 0; block < rank_tiles(rank); block++) {
        for (int32_t lane = 0; lane < 32; lane++) {
          for (int32_t e = 0; e < 8; e++) {
            const int32_t g = lane / 4;
            const int32_t output = tile * 32 + 8 * (g / 2) + e / 2 * 2 + g % 2;
            const int32_t r = block * 8 + 2 * (lane % 4) + e % 2;
            const float expected = output < outputs && r < rank ? element(output, r, rank) : 0;
            ASSERT_EQ(half_to_float(out[static_cast<size_t>((block * 32 + lane) * 8 + e)]), expected);
          }
        }
      }
    }
  }
}

TEST(LoraPack, TakesValuesOfEveryTypeAlike) {
  const int32_t rank = 13, size = 72;
  const std::vector<float> values = matrix(rank, size);  // up to 936: exact in fp16, not all of them in bf16
  for (const Dtype from : {Dtype::f16, Dtype::bf16}) {
    std::vector<uint16_t> stored;
    std::vector<float> exact;
    for (const float value : values) {
      stored.push_back(from == Dtype::f16 ? float_to_half(value) : float_to_bf16(value));
      exact.push_back(from == Dtype::f16 ? half_to_float(stored.back()) : bf16_to_float(stored.back()));
    }
    for (const Dtype to : {Dtype::f16, Dtype::bf16}) {
      std::vector<uint16_t> one(a_tile_bytes(size) / 2), other(one.size());
      for (int32_t tile = 0; tile < rank_tiles(rank); tile++) {
        pack_a_tile(stored.data(), from, rank, size, tile, to, one.data());
        pack_a_tile(exact.data(), Dtype::f32, rank, size, tile, to, other.data());
        EXPECT_EQ(one, other);
      }
      one.assign(b_tile_bytes(rank) / 2, 0);
      other = one;
      for (int32_t tile = 0; tile < output_tiles(size); tile++) {
        pack_b_tile(stored.data(), from, rank, size, tile, to, one.data());
        pack_b_tile(exact.data(), Dtype::f32, rank, size, tile, to, other.data());
        EXPECT_EQ(one, other);
      }
      std::vector<uint16_t> row(static_cast<size_t>(size)), expected(row);
      convert(stored.data(), from, 2 * size, size, to, row.data());
      convert(exact.data(), Dtype::f32, 2 * size, size, to, expected.data());
      EXPECT_EQ(row, expected);
    }
  }
}

TEST(LoraPack, NoticesWhatIsNotFinite) {
  for (const Dtype dtype : {Dtype::f16, Dtype::bf16}) {
    for (const float bad : {INFINITY, -INFINITY, NAN, 1e5F}) {
      std::vector<float> a(64, 1.0F);
      a[37] = bad;
      std::vector<uint16_t> out(a_tile_bytes(64) / 2);
      pack_a_tile(a.data(), Dtype::f32, 1, 64, 0, dtype, out.data());
      EXPECT_EQ(all_finite(out.data(), out.size(), dtype), dtype == Dtype::bf16 && bad == 1e5F);
      a[37] = 2;
      pack_a_tile(a.data(), Dtype::f32, 1, 64, 0, dtype, out.data());
      EXPECT_TRUE(all_finite(out.data(), out.size(), dtype));
    }
  }
}

}  // namespace
}  // namespace lorikeet::kernels::lora
