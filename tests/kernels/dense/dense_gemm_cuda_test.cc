#include "kernels/dense/dense_gemm_cuda.h"

#include "kernels/cuda/library_gemm.h"
#include "tests/kernels/base/cuda_test.h"

namespace lorikeet::kernels {
namespace {

struct Shape {
  int32_t m, n, k;
};

std::vector<double> product(const HalfTensor& x, int64_t x_stride, const HalfTensor& weight, Shape shape) {
  std::vector<double> y;
  for (int32_t i = 0; i < shape.m; i++) {
    for (int32_t n = 0; n < shape.n; n++) {
      double sum = 0;
      for (int32_t k = 0; k < shape.k; k++) {
        sum += static_cast<double>(x.values[static_cast<size_t>(i * x_stride + k)]) *
               weight.values[static_cast<size_t>(n) * shape.k + k];
      }
      y.push_back(sum);
    }
  }
  return y;
}

class DenseGemmCuda : public CudaTest, public ::testing::WithParamInterface<Dtype> {
 protected:
  // Weights of unit gain, so that tolerances relative to max(1, |y|) mean something.
  HalfTensor weight_of(Shape shape) {
    return random_halves(static_cast<size_t>(shape.n) * shape.k, GetParam(), random_,
                         1 / std::sqrt(static_cast<float>(shape.k)));
  }

  std::vector<float> run(const HalfTensor& x, int64_t x_stride, const DeviceBuffer& weight, Shape shape,
                         Dtype out_dtype) {
    const DeviceBuffer in = to_device(x.stored);
    const DeviceBuffer out = poisoned(static_cast<uint64_t>(shape.m) * shape.n * size_of(out_dtype));
    DenseGemmArgs args;
    args.x = in.data();
    args.x_stride = x_stride;
    args.weight = weight.data();
    args.dtype = GetParam();
    args.out = out.data();
    args.out_stride = shape.n;
    args.out_dtype = out_dtype;
    args.m = shape.m;
    args.n = shape.n;
    args.k = shape.k;
    dense_gemm_cuda(args, stream_);
    return out_dtype == Dtype::f32 ? to_host<float>(out) : to_values(to_host<uint16_t>(out), out_dtype);
  }

  std::mt19937 random_{7};
};

TEST_P(DenseGemmCuda, MultipliesAtAnyShape) {
  const std::vector<Shape> shapes = sizes<Shape>({{1, 16, 8},
                                                  {1, 2048, 512},
                                                  {3, 17, 264},
                                                  {8, 100, 5120},
                                                  {9, 333, 1536},
                                                  {17, 64, 40},
                                                  {33, 129, 896},
                                                  {64, 1000, 256},
                                                  {65, 48, 512},
                                                  {150, 31, 136},
                                                  {2, 16384, 64},
                                                  {70, 16411, 72}},
                                                 {{3, 17, 264},
                                                  {9, 33, 1536},
                                                  {17, 64, 40},
                                                  {70, 29, 896},
                                                  {2, 16384, 64},
                                                  {10, 16400, 8},
                                                  {20, 16400, 8},
                                                  {70, 16411, 72}});
  for (const Shape& shape : shapes) {
    const HalfTensor x = random_halves(static_cast<size_t>(shape.m) * shape.k, GetParam(), random_);
    const HalfTensor weight = weight_of(shape);
    const DeviceBuffer device_weight = to_device(weight.stored);
    const std::vector<double> expected = product(x, shape.k, weight, shape);
    EXPECT_TRUE(near_reference(run(x, shape.k, device_weight, shape, Dtype::f32), expected, tests::kFloat32Tolerance))
        << shape.m << " x " << shape.n << " x " << shape.k;
    EXPECT_TRUE(near_reference(run(x, shape.k, device_weight, shape, GetParam()), expected, tolerance_of(GetParam())))
        << shape.m << " x " << shape.n << " x " << shape.k;
  }
}

TEST_P(DenseGemmCuda, GivesARowTheSameBitsWhateverTheNumberOfRows) {
  for (const int32_t n : {320, 16400}) {  // both ways of dividing the work
    const Shape all = {usual_or_few(130, 66), n, usual_or_few(1544, 264)};
    const HalfTensor x = random_halves(static_cast<size_t>(all.m) * all.k, GetParam(), random_);
    const HalfTensor weight = weight_of(all);
    const DeviceBuffer device_weight = to_device(weight.stored);
    const std::vector<float> together = run(x, all.k, device_weight, all, Dtype::f32);
    for (const int32_t m : {1, 7, 16, 30, 64}) {
      const int32_t first = all.m - 1 - m;
      HalfTensor part;
      part.stored.assign(x.stored.begin() + static_cast<int64_t>(first) * all.k,
                         x.stored.begin() + static_cast<int64_t>(first + m) * all.k);
      const std::vector<float> some = run(part, all.k, device_weight, {m, n, all.k}, Dtype::f32);
      EXPECT_EQ(some, std::vector<float>(together.begin() + static_cast<int64_t>(first) * n,
                                         together.begin() + static_cast<int64_t>(first + m) * n))
          << m << " rows, n " << n;
    }
  }
}

TEST_P(DenseGemmCuda, LibraryGemmAgreesForManyRows) {
  Result<LibraryGemm> gemm = LibraryGemm::make();
  ASSERT_TRUE(gemm) << gemm.error().message;
  for (const Shape& shape : std::vector<Shape>{{65, 512, 256}, {300, 1536, 512}, {129, 336, 1536}, {1, 128, 128}}) {
    const int64_t x_stride = shape.k + 64;
    const HalfTensor x = random_halves(static_cast<size_t>(shape.m * x_stride), GetParam(), random_);
    const HalfTensor weight = weight_of(shape);
    const DeviceBuffer in = to_device(x.stored);
    const DeviceBuffer device_weight = to_device(weight.stored);
    const std::vector<double> expected = product(x, x_stride, weight, shape);
    for (const Dtype out_dtype : {Dtype::f32, GetParam()}) {
      const DeviceBuffer out = poisoned(static_cast<uint64_t>(shape.m) * shape.n * size_of(out_dtype));
      LibraryGemmArgs args;
      args.x = in.data();
      args.x_stride = x_stride;
      args.weight = device_weight.data();
      args.dtype = GetParam();
      args.out = out.data();
      args.out_stride = shape.n;
      args.out_dtype = out_dtype;
      args.m = shape.m;
      args.n = shape.n;
      args.k = shape.k;
      gemm->run(args, stream_);
      const std::vector<float> y =
          out_dtype == Dtype::f32 ? to_host<float>(out) : to_values(to_host<uint16_t>(out), out_dtype);
      EXPECT_TRUE(near_reference(y, expected, tolerance_of(out_dtype)))
          << shape.m << " x " << shape.n << " x " << shape.k;
    }
  }
}

INSTANTIATE_TEST_SUITE_P(, DenseGemmCuda, ::testing::Values(Dtype::f16, Dtype::bf16),
                         [](const auto& test) { return dtype_name(test.param); });

}  // namespace
}  // namespace lorikeet::kernels
