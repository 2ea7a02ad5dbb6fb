#include "kernels/dense/dense_weight_cuda.h"

#include "tests/kernels/base/cuda_test.h"

namespace lorikeet::kernels {
namespace {

class DenseWeightCuda : public CudaTest {
 protected:
  std::mt19937 random_{2};
};

TEST_F(DenseWeightCuda, ConvertsBetweenAllTypesAsTheHostDoes) {
  const std::vector<float> values = random_floats(1001, random_, 3);
  for (const Dtype to : {Dtype::f16, Dtype::bf16}) {
    std::vector<uint16_t> expected;
    for (const float v : values) expected.push_back(to_stored(v, to));
    const DeviceBuffer from = to_device(values);
    const DeviceBuffer converted = poisoned(values.size() * 2);
    convert_cuda(from.data(), Dtype::f32, converted.data(), to, 1001, stream_);
    EXPECT_EQ(to_host<uint16_t>(converted), expected);
    for (const Dtype dtype : {Dtype::f16, Dtype::bf16}) {
      const HalfTensor halves = random_halves(777, dtype, random_);
      expected.clear();
      for (const float v : halves.values) expected.push_back(to_stored(v, to));
      const DeviceBuffer from_halves = to_device(halves.stored);
      const DeviceBuffer out = poisoned(halves.stored.size() * 2);
      convert_cuda(from_halves.data(), dtype, out.data(), to, 777, stream_);
      EXPECT_EQ(to_host<uint16_t>(out), expected) << dtype_name(dtype) << " to " << dtype_name(to);
    }
  }
}

TEST_F(DenseWeightCuda, FillsUniformlyAndRepeatably) {
  const auto filled = [&](int64_t count, uint64_t seed) {
    const DeviceBuffer buffer = poisoned(static_cast<uint64_t>(count) * 2);
    fill_uniform_cuda(buffer.data(), Dtype::f16, count, 0.5F, seed, stream_);
    return to_values(to_host<uint16_t>(buffer), Dtype::f16);
  };
  const std::vector<float> values = filled(100000, 7);
  double sum = 0, squares = 0;
  for (const float v : values) {
    ASSERT_LE(std::abs(v), 0.5F);
    sum += v;
    squares += static_cast<double>(v) * static_cast<double>(v);
  }
  EXPECT_NEAR(sum / 100000, 0, 0.005);
  EXPECT_NEAR(squares / 100000, 0.25 / 3, 0.002);
  EXPECT_EQ(filled(100, 7), std::vector<float>(values.begin(), values.begin() + 100));
  EXPECT_NE(filled(100, 8), std::vector<float>(values.begin(), values.begin() + 100));
}

}  // namespace
}  // namespace lorikeet::kernels
