#include "kernels/layer/rms_norm_cuda.h"

#include "tests/kernels/base/cuda_test.h"

namespace lorikeet::kernels {
namespace {

std::vector<double> normalised(const std::vector<double>& x, const std::vector<float>& weight, double epsilon) {
  const size_t width = weight.size();
  std::vector<double> y;
  for (size_t row = 0; row < x.size() / width; row++) {
    double squares = 0;
    for (size_t i = 0; i < width; i++) squares += x[row * width + i] * x[row * width + i];
    const double factor = 1 / std::sqrt(squares / static_cast<double>(width) + epsilon);
    for (size_t i = 0; i < width; i++) y.push_back(x[row * width + i] * factor * weight[i]);
  }
  return y;
}

class RmsNormCuda : public CudaTest, public ::testing::WithParamInterface<Dtype> {
 protected:
  std::mt19937 random_{2};
};

TEST_P(RmsNormCuda, AddsTheDeltaAndNormalisesAtAnyWidth) {
  for (const int32_t width : {8, 128, 1000, 1032, 2056, 5120, 8200, 16384}) {
    const int32_t tokens = usual_or_few(5, 2);
    const size_t count = static_cast<size_t>(tokens) * width;
    const std::vector<float> residual = random_floats(count, random_, 3);
    const HalfTensor delta = random_halves(count, GetParam(), random_, 2);
    const std::vector<float> weight = random_floats(static_cast<size_t>(width), random_, 0.3F, 1);
    const DeviceBuffer device_residual = to_device(residual);
    const DeviceBuffer device_delta = to_device(delta.stored);
    const DeviceBuffer device_weight = to_device(weight);
    const DeviceBuffer out = poisoned(count * 2);
    AddRmsNormArgs args;
    args.residual = device_residual.as<float>();
    args.delta = device_delta.data();
    args.weight = device_weight.as<float>();
    args.epsilon = 1e-6F;
    args.out = out.data();
    args.dtype = GetParam();
    args.tokens = tokens;
    args.width = width;
    add_rms_norm_cuda(args, stream_);
    std::vector<double> sum;
    for (size_t i = 0; i < count; i++) sum.push_back(static_cast<double>(residual[i]) + delta.values[i]);
    EXPECT_TRUE(near_reference(to_host<float>(device_residual), sum, tests::kFloat32Tolerance)) << width;
    EXPECT_TRUE(near_reference(to_values(to_host<uint16_t>(out), GetParam()), normalised(sum, weight, 1e-6),
                               tolerance_of(GetParam())))
        << width;
  }
}

TEST_P(RmsNormCuda, WritesTheSumElsewhereWhereItIsTold) {
  const int32_t width = 1032;
  const size_t count = size_t{2} * width;
  const std::vector<float> residual = random_floats(count, random_);
  const DeviceBuffer in_place = to_device(residual);
  const DeviceBuffer kept = to_device(residual);
  const DeviceBuffer sum = poisoned(count * sizeof(float));
  const DeviceBuffer delta = to_device(random_halves(count, GetParam(), random_).stored);
  const DeviceBuffer weight = to_device(random_floats(static_cast<size_t>(width), random_, 0.3F, 1));
  const DeviceBuffer out = poisoned(count * 2);
  const DeviceBuffer out_elsewhere = poisoned(count * 2);
  AddRmsNormArgs args;
  args.delta = delta.data();
  args.weight = weight.as<float>();
  args.epsilon = 1e-6F;
  args.dtype = GetParam();
  args.tokens = 2;
  args.width = width;
  args.residual = in_place.as<float>();
  args.out = out.data();
  add_rms_norm_cuda(args, stream_);
  args.residual = kept.as<float>();
  args.residual_out = sum.as<float>();
  args.out = out_elsewhere.data();
  add_rms_norm_cuda(args, stream_);
  EXPECT_EQ(to_host<float>(kept), residual);
  EXPECT_EQ(to_host<float>(sum), to_host<float>(in_place));
  EXPECT_EQ(to_host<uint16_t>(out), to_host<uint16_t>(out_elsewhere));
}

TEST_P(RmsNormCuda, PicksRowsAndLeavesTheResidualAsItWas) {
  const int32_t width = 512;
  const std::vector<float> residual = random_floats(size_t{7} * width, random_);
  const std::vector<float> weight = random_floats(static_cast<size_t>(width), random_, 0.3F, 1);
  const std::vector<int32_t> rows = {6, 0, 3};
  const DeviceBuffer device_residual = to_device(residual);
  const DeviceBuffer device_weight = to_device(weight);
  const DeviceBuffer device_rows = to_device(rows);
  const DeviceBuffer out = poisoned(rows.size() * width * 2);
  AddRmsNormArgs args;
  args.residual = device_residual.as<float>();
  args.weight = device_weight.as<float>();
  args.epsilon = 1e-5F;
  args.rows = device_rows.as<int32_t>();
  args.out = out.data();
  args.dtype = GetParam();
  args.tokens = 3;
  args.width = width;
  add_rms_norm_cuda(args, stream_);
  std::vector<double> picked;
  for (const int32_t row : rows) {
    for (int32_t i = 0; i < width; i++) picked.push_back(residual[static_cast<size_t>(row) * width + i]);
  }
  EXPECT_TRUE(near_reference(to_values(to_host<uint16_t>(out), GetParam()), normalised(picked, weight, 1e-5),
                             tolerance_of(GetParam())));
  EXPECT_EQ(to_host<float>(device_residual), residual);
}

TEST_P(RmsNormCuda, GivesARowTheSameBitsAloneAndInABatch) {
  const int32_t width = 5120;
  const int32_t tokens = usual_or_few(64, 3);
  const std::vector<float> residual = random_floats(static_cast<size_t>(tokens) * width, random_);
  const std::vector<float> weight = random_floats(static_cast<size_t>(width), random_, 0.3F, 1);
  const DeviceBuffer device_weight = to_device(weight);
  AddRmsNormArgs args;
  args.weight = device_weight.as<float>();
  args.epsilon = 1e-6F;
  args.dtype = GetParam();
  args.width = width;
  const auto run = [&](const std::vector<float>& x) {
    const DeviceBuffer in = to_device(x);
    const DeviceBuffer out = poisoned(x.size() * 2);
    args.residual = in.as<float>();
    args.out = out.data();
    args.tokens = static_cast<int32_t>(x.size()) / width;
    add_rms_norm_cuda(args, stream_);
    return to_host<uint16_t>(out);
  };
  const std::vector<uint16_t> together = run(residual);
  for (const int32_t row : {0, tokens / 2, tokens - 1}) {
    const int64_t begin = static_cast<int64_t>(row) * width;
    const std::vector<uint16_t> alone = run({residual.begin() + begin, residual.begin() + begin + width});
    EXPECT_EQ(alone, std::vector<uint16_t>(together.begin() + begin, together.begin() + begin + width)) << row;
  }
}

INSTANTIATE_TEST_SUITE_P(, RmsNormCuda, ::testing::Values(Dtype::f16, Dtype::bf16),
                         [](const auto& test) { return dtype_name(test.param); });

}  // namespace
}  // namespace lorikeet::kernels
