#include "model/checkpoint/stored_floats.h"

#include <gtest/gtest.h>

#include <cmath>
#include <limits>

namespace lorikeet::model {
namespace {

using kernels::Dtype;

StoredFloats halves(const std::vector<uint16_t>& bits, Dtype dtype = Dtype::f16) {
  return {dtype, {reinterpret_cast<const uint8_t*>(bits.data()), 2 * bits.size()}};
}

TEST(StoredFloats, GiveTheValuesOfEveryType) {
  EXPECT_EQ(halves({0x3c00, 0xc000, 0x0001}).floats(), (std::vector<float>{1, -2, 0x1p-24F}));
  EXPECT_EQ(halves({0x3f80, 0xc000}, Dtype::bf16).floats(), (std::vector<float>{1, -2}));
  EXPECT_EQ(StoredFloats({0.1F, 3e38F}).floats(), (std::vector<float>{0.1F, 3e38F}));
  EXPECT_EQ(halves({0x3c00, 0xc000}), StoredFloats({1, -2}));
  EXPECT_FALSE(halves({0x3c00}) == StoredFloats({2}));
}

TEST(StoredFloats, TakeTheSmallestTypeThatHoldsThemExactly) {
  EXPECT_EQ(StoredFloats({1, 0x1p-24F, -65504}).smallest().dtype(), Dtype::f16);
  EXPECT_EQ(StoredFloats({1, 0x1p-40F, 1e30F * 0}).smallest().dtype(), Dtype::bf16);
  EXPECT_EQ(StoredFloats({1, 0x1p-24F, 0x1p100F}).smallest().dtype(), Dtype::bf16);
  EXPECT_EQ(StoredFloats({0.1F}).smallest().dtype(), Dtype::f32);
  for (const std::vector<float>& values : {std::vector<float>{1.5F, -0.0F, 0x1.8p-23F}, {0x1p-40F, 3}, {0.1F}}) {
    EXPECT_EQ(StoredFloats(values).smallest().floats(), values);
  }
}

TEST(StoredFloats, AreCutByRowsAndColumns) {
  for (const StoredFloats& matrix : {StoredFloats({1, 2, 3, 4, 5, 6}), StoredFloats({1, 2, 3, 4, 5, 6}).smallest()}) {
    EXPECT_EQ(matrix.rows(3, 1, 2), StoredFloats({4, 5, 6}));
    EXPECT_EQ(matrix.columns(3, 1, 3), StoredFloats({2, 3, 5, 6}));
    EXPECT_EQ(matrix.columns(3, 0, 3), matrix);
    EXPECT_EQ(matrix.rows(3, 1, 1), StoredFloats());
    EXPECT_EQ(matrix.columns(3, 1, 3).dtype(), matrix.dtype());
  }
}

TEST(StoredFloats, AreSpreadWithZerosBetween) {
  for (const StoredFloats& matrix : {StoredFloats({1, 2, 3, 4}), StoredFloats({1, 2, 3, 4}).smallest()}) {
    EXPECT_EQ(matrix.spread_rows(2, {1, 3}, 4), StoredFloats({0, 0, 1, 2, 0, 0, 3, 4}));
    EXPECT_EQ(matrix.spread_columns({0, 2}, 3), StoredFloats({1, 0, 2, 3, 0, 4}));
  }
}

TEST(StoredFloats, FindWhatIsNotFinite) {
  EXPECT_EQ(StoredFloats({1, 2}).first_not_finite(), std::nullopt);
  EXPECT_EQ(StoredFloats({1, NAN}).first_not_finite(), 1);
  EXPECT_EQ(StoredFloats({-INFINITY, 1}).first_not_finite(), 0);
  EXPECT_EQ(halves({0x3c00, 0x7bff, 0xfc00}).first_not_finite(), 2);
  EXPECT_EQ(halves({0x3c00, 0x7bff, 0x7f80}, Dtype::bf16).first_not_finite(), 2);
  EXPECT_EQ(halves({0x7c00}, Dtype::bf16).first_not_finite(), std::nullopt);
}

// Whether b, made from a by `change`, still holds the same weights.
bool same(const StoredFloats& a, const StoredFloats& b) {
  SameWeights weights;
  weights.compare(a.dtype(), a.bytes(), b.dtype(), b.bytes());
  SameWeights backwards;
  backwards.compare(b.dtype(), b.bytes(), a.dtype(), a.bytes());
  EXPECT_EQ(weights.same(), backwards.same());
  return weights.same();
}

TEST(SameWeights, AreEqualWithinTheRoundingOfAType) {
  const std::vector<float> values = {0.1F, -0.3F, 1.001F, 0, 3.14159F};
  std::vector<uint16_t> as_half, as_bf16, by_half;
  std::vector<float> back;
  for (const float value : values) {
    as_half.push_back(kernels::float_to_half(value));
    as_bf16.push_back(kernels::float_to_bf16(value));
    by_half.push_back(kernels::float_to_bf16(kernels::half_to_float(as_half.back())));
    back.push_back(kernels::bf16_to_float(as_bf16.back()));
  }
  const StoredFloats floats(values), half = halves(as_half), bf16 = halves(as_bf16, Dtype::bf16);
  EXPECT_TRUE(same(floats, floats));
  EXPECT_TRUE(same(floats, half));
  EXPECT_TRUE(same(floats, bf16));
  EXPECT_TRUE(same(half, halves(by_half, Dtype::bf16)));
  EXPECT_TRUE(same(floats, StoredFloats(back))) << "through bfloat16 and back";
  EXPECT_FALSE(same(half, halves({0x3c00, 0x3c00, 0x3c00, 0, 0x3c00})));
  EXPECT_FALSE(same(floats, StoredFloats({0.1F, -0.3F, 1.001F, 0})));
  // One value that was truly changed, by less than bfloat16 would round it.
  std::vector<float> changed = values;
  changed[4] += 0.001F;
  EXPECT_FALSE(same(floats, StoredFloats(changed)));
  // Some values as one type rounds them, others as another does.
  std::vector<float> mixed = values;
  mixed[0] = back[0];
  mixed[2] = kernels::half_to_float(as_half[2]);
  EXPECT_FALSE(same(floats, StoredFloats(mixed)));
  EXPECT_FALSE(same(StoredFloats({1, std::nanf("")}), StoredFloats({1, std::nanf("")})));
}

}  // namespace
}  // namespace lorikeet::model
