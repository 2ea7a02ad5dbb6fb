#include "kernels/base/dtype.h"

#include <gtest/gtest.h>

#include <cmath>

namespace lorikeet::kernels {
namespace {

TEST(Dtype, GivesEveryHalfBackThatBecameAFloat) {
  for (uint32_t h = 0; h < 0x10000; h++) {
    const float value = half_to_float(static_cast<uint16_t>(h));
    if (std::isnan(value)) {
      EXPECT_TRUE(std::isnan(half_to_float(float_to_half(value))));
    } else {
      EXPECT_EQ(float_to_half(value), h);
    }
  }
}

TEST(Dtype, RoundsToTheNearestHalfAndTiesToEven) {
  for (uint32_t h = 0; h < 0x7bff; h++) {  // below the largest finite half
    const float low = half_to_float(static_cast<uint16_t>(h));
    const float high = half_to_float(static_cast<uint16_t>(h + 1));
    const float middle = low + (high - low) / 2;
    EXPECT_EQ(float_to_half(middle), h % 2 == 0 ? h : h + 1);
    EXPECT_EQ(float_to_half(std::nextafter(middle, 0.0F)), h);
    EXPECT_EQ(float_to_half(std::nextafter(middle, INFINITY)), h + 1);
    EXPECT_EQ(float_to_half(-std::nextafter(middle, INFINITY)), 0x8000U | (h + 1));
  }
  EXPECT_EQ(float_to_half(65519.99F), 0x7bff);
  EXPECT_EQ(float_to_half(65520.0F), 0x7c00);
  EXPECT_EQ(float_to_half(-1e30F), 0xfc00);
  EXPECT_EQ(float_to_half(1e-30F), 0);
}

TEST(Dtype, RoundsToTheNearestBfloat16AndTiesToEven) {
  for (uint32_t b = 0; b < 0x7f7f; b++) {
    const float low = bf16_to_float(static_cast<uint16_t>(b));
    EXPECT_EQ(float_to_bf16(low), b);
    const float middle = std::bit_cast<float>(b << 16 | 0x8000U);
    EXPECT_EQ(float_to_bf16(middle), b % 2 == 0 ? b : b + 1);
    EXPECT_EQ(float_to_bf16(std::nextafter(middle, 0.0F)), b);
    EXPECT_EQ(float_to_bf16(-std::nextafter(middle, INFINITY)), 0x8000U | (b + 1));
  }
  EXPECT_EQ(float_to_bf16(INFINITY), 0x7f80);
  EXPECT_TRUE(std::isnan(bf16_to_float(float_to_bf16(NAN))));
}

}  // namespace
}  // namespace lorikeet::kernels
