// What tests of the int4 product on the device share.
#pragma once

#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <random>
#include <span>
#include <stdexcept>
#include <utility>
#include <vector>

#include "kernels/int4/decode/int4_decode.h"
#include "kernels/int4/int4_gemm_cuda.h"
#include "tests/kernels/base/cuda_test.h"
#include "tests/kernels/int4/random_int4.h"
#include "tests/kernels/int4/tested_device.h"

namespace lorikeet::kernels {

class Int4GemmCuda : public CudaTest {
 protected:
  PackedInt4Weight pack(const Int4Weight& weight) {
    const Int4Weight* parts[] = {&weight};
    return pack_parts(parts);
  }
  PackedInt4Weight pack_parts(std::span<const Int4Weight* const> parts) {
    Result<PackedInt4Weight> packed = PackedInt4Weight::pack(parts, stream_);
    if (!packed) throw std::runtime_error(packed.error().message);
    return std::move(*packed);
  }
  PackedInt4Weight pack_pair(const Int4Weight& gate, const Int4Weight& up) {
    Result<PackedInt4Weight> packed = PackedInt4Weight::pack_pair(gate, up, stream_);
    if (!packed) throw std::runtime_error(packed.error().message);
    return std::move(*packed);
  }
  // What the product runs is decided by `device_`.
  Int4Gemm make_gemm(int32_t max_rows, const PackedInt4Weight& weight) const {
    Result<Int4Gemm> gemm = Int4Gemm::make(max_rows, weight.n, weight.k, device_);
    if (!gemm) throw std::runtime_error(gemm.error().message);
    return std::move(*gemm);
  }

  struct Call {
    Dtype dtype = Dtype::f16;
    int32_t m = 1;
    const std::vector<float>* bias = nullptr;
    bool silu_mul = false;
    bool late_x = false;
  };
  // y [m, outputs] as stored, of x [m, x_size].
  std::vector<uint16_t> multiply(const PackedInt4Weight& weight, const HalfTensor& x, const Call& call) {
    Int4Gemm gemm = make_gemm(call.m, weight);
    return run(weight, x, call, [&](const Int4GemmArgs& args) { gemm.run(weight, args, stream_, call.late_x); });
  }
  std::vector<uint16_t> multiply(const PackedInt4Weight& weight, const HalfTensor& x, const Call& call,
                                 const Int4DecodeWish& wish) {
    const Int4DecodeShape shape = shape_int4_decode(weight, call.m, call.dtype, wish, device_);
    return run(weight, x, call, [&](const Int4GemmArgs& args) { int4_decode(weight, args, shape, stream_); });
  }

  // The largest row stride that is a multiple of 8 and leaves a gap, so that strides are honoured.
  static int64_t x_stride(const PackedInt4Weight& weight) { return (weight.x_size + 7) / 8 * 8 + 8; }

  template <class F>
  std::vector<uint16_t> run(const PackedInt4Weight& weight, const HalfTensor& x, const Call& call, F&& product) {
    const auto rows = static_cast<size_t>(call.m);
    const auto inputs = static_cast<size_t>(weight.x_size);
    const auto stride = static_cast<size_t>(x_stride(weight));
    std::vector<uint16_t> padded(rows * stride, to_stored(NAN, call.dtype));
    for (size_t i = 0; i < rows; i++) std::copy_n(&x.stored[i * inputs], inputs, &padded[i * stride]);
    const DeviceBuffer x_device = to_device(padded);
    const DeviceBuffer bias = call.bias != nullptr ? to_device(*call.bias) : DeviceBuffer();
    const int32_t outputs = call.silu_mul ? weight.n / 2 : weight.n;
    const DeviceBuffer y = poisoned(rows * static_cast<size_t>(outputs) * 2);
    Int4GemmArgs args;
    args.x = x_device.data();
    args.x_stride = x_stride(weight);
    args.dtype = call.dtype;
    args.y = y.data();
    args.y_stride = outputs;
    args.m = call.m;
    args.bias = bias.as<float>();
    args.silu_mul = call.silu_mul;
    product(args);
    return to_host<uint16_t>(y);
  }

  // Every `step`-th output of the product in double precision, for [m] rows: [m][outputs / step].
  static std::vector<double> reference(const Int4Weight& w, const HalfTensor& x, int32_t m, int32_t step = 1) {
    const int32_t columns = (w.n + step - 1) / step;
    std::vector<double> y(static_cast<size_t>(m) * static_cast<size_t>(columns));
    for (int32_t c = 0; c < columns; c++) {
      const std::vector<double> row = int4_row(w, c * step);
      for (int32_t i = 0; i < m; i++) {
        const float* xi = &x.values[static_cast<size_t>(i) * static_cast<size_t>(w.x_size)];
        double sum = 0;
        for (size_t k = 0; k < row.size(); k++) sum += row[k] * xi[k];
        y[static_cast<size_t>(i) * static_cast<size_t>(columns) + static_cast<size_t>(c)] = sum;
      }
    }
    return y;
  }
  static std::vector<float> every(const std::vector<uint16_t>& y, Dtype dtype, int32_t m, int32_t n, int32_t step) {
    std::vector<float> picked;
    for (int32_t i = 0; i < m; i++) {
      for (int32_t c = 0; c < n; c += step) {
        picked.push_back(to_value(y[static_cast<size_t>(i) * static_cast<size_t>(n) + static_cast<size_t>(c)], dtype));
      }
    }
    return picked;
  }

  void SetUp() override {
    CudaTest::SetUp();
    if (!IsSkipped()) device_ = tested_device();
  }

  Int4DecodeDevice device_;
  std::mt19937 random_{7};
};

class Int4GemmCudaOfDtype : public Int4GemmCuda, public ::testing::WithParamInterface<Dtype> {};

inline constexpr Dtype kDtypes[] = {Dtype::f16, Dtype::bf16};

}  // namespace lorikeet::kernels
