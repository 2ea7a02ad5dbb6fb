#include "kernels/layer/silu_mul_cuda.h"

#include "tests/kernels/base/cuda_test.h"

namespace lorikeet::kernels {
namespace {

class SiluMulCuda : public CudaTest, public ::testing::WithParamInterface<Dtype> {};

TEST_P(SiluMulCuda, MultipliesTheGateIntoUpAtAnyShape) {
  std::mt19937 random{3};
  for (const int32_t width : sizes({8, 448, 1536, 13824}, {8, 1536})) {
    for (const int32_t tokens : {1, 3, 65}) {
      const int64_t stride = 2 * width;
      const HalfTensor gate_up = random_halves(static_cast<size_t>(tokens * stride), GetParam(), random, 4);
      const DeviceBuffer in = to_device(gate_up.stored);
      const DeviceBuffer out = poisoned(static_cast<uint64_t>(tokens) * width * 2);
      SiluMulArgs args;
      args.gate = in.data();
      args.up = in.as<uint16_t>() + width;
      args.stride = stride;
      args.out = out.data();
      args.dtype = GetParam();
      args.tokens = tokens;
      args.width = width;
      silu_mul_cuda(args, stream_);
      std::vector<double> expected;
      for (int32_t t = 0; t < tokens; t++) {
        for (int32_t i = 0; i < width; i++) {
          const double gate = gate_up.values[static_cast<size_t>(t * stride + i)];
          expected.push_back(gate / (1 + std::exp(-gate)) *
                             gate_up.values[static_cast<size_t>(t * stride + width + i)]);
        }
      }
      EXPECT_TRUE(near_reference(to_values(to_host<uint16_t>(out), GetParam()), expected, tolerance_of(GetParam())))
          << tokens << " x " << width;
    }
  }
}

TEST_P(SiluMulCuda, StoresTheLargestNumberWhereFp16HasNone) {
  const std::vector<float> gate_up = {60000, 60000, 60000, 2, 2, NAN, 1, 1, 60000, -60000, 1, 3, 2, 2, 1, 1};
  std::vector<uint16_t> stored;
  for (const float x : gate_up) stored.push_back(to_stored(x, GetParam()));
  const DeviceBuffer in = to_device(stored);
  const DeviceBuffer out = poisoned(16);
  SiluMulArgs args;
  args.gate = in.data();
  args.up = in.as<uint16_t>() + 8;
  args.stride = 16;
  args.out = out.data();
  args.dtype = GetParam();
  args.tokens = 1;
  args.width = 8;
  silu_mul_cuda(args, stream_);
  const std::vector<float> y = to_values(to_host<uint16_t>(out), GetParam());
  if (GetParam() == Dtype::f16) {
    EXPECT_EQ(y[0], 65504);
    EXPECT_EQ(y[1], -65504);
  }
  EXPECT_TRUE(std::isfinite(y[0]));
  EXPECT_TRUE(std::isnan(y[5])) << "what is no number stays none";
}

INSTANTIATE_TEST_SUITE_P(, SiluMulCuda, ::testing::Values(Dtype::f16, Dtype::bf16),
                         [](const auto& test) { return dtype_name(test.param); });

}  // namespace
}  // namespace lorikeet::kernels
