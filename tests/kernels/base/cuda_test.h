// What the tests of the CUDA kernels share: a device or a skip, random tensors, their way to the device and back, and
// comparison with a reference.
#pragma once

#include <cuda_bf16.h>
#include <cuda_fp16.h>
#include <gtest/gtest.h>

#include <cmath>
#include <cstdint>
#include <random>
#include <string>
#include <vector>

#include "kernels/base/device.h"
#include "kernels/base/dtype.h"
#include "tests/kernels/base/test_sizes.h"
#include "tests/tolerance.h"

namespace lorikeet::kernels {

// Every test has the device 0 and a stream, or is skipped; under a sanitizer, which somebody asked for, it fails instead.
class CudaTest : public ::testing::Test {
 protected:
  void SetUp() override {
    const Result<int> count = device_count();
    if (takes_few_sizes()) {
      ASSERT_TRUE(count) << count.error().message;
      ASSERT_GT(*count, 0) << "this host has no CUDA device";
    }
    if (!count) GTEST_SKIP() << count.error().message;
    if (*count == 0) GTEST_SKIP() << "this host has no CUDA device";
    ASSERT_TRUE(use_device(0));
    Result<Stream> made = Stream::make();
    ASSERT_TRUE(made) << made.error().message;
    stream_ = std::move(*made);
  }

  template <class T>
  DeviceBuffer to_device(const std::vector<T>& values) {
    DeviceBuffer buffer = allocate(values.size() * sizeof(T));
    if (!values.empty()) copy_to_device(buffer.data(), values.data(), values.size() * sizeof(T), stream_);
    stream_.synchronize();
    return buffer;
  }

  // Device memory whose every byte is 0xff: NaN in all float types, -1 as an integer. What a kernel leaves out shows.
  DeviceBuffer poisoned(uint64_t bytes) {
    DeviceBuffer buffer = allocate(bytes);
    if (bytes > 0) fill_bytes(buffer.data(), 0xff, bytes, stream_);
    return buffer;
  }
  DeviceBuffer zeroed(uint64_t bytes) {
    DeviceBuffer buffer = allocate(bytes);
    if (bytes > 0) fill_bytes(buffer.data(), 0, bytes, stream_);
    return buffer;
  }

  template <class T>
  std::vector<T> to_host(const DeviceBuffer& buffer) {
    std::vector<T> values(buffer.bytes() / sizeof(T));
    if (!values.empty()) copy_to_host(values.data(), buffer.data(), buffer.bytes(), stream_);
    stream_.synchronize();
    return values;
  }

  static DeviceBuffer allocate(uint64_t bytes) {
    Result<DeviceBuffer> buffer = DeviceBuffer::allocate(bytes, "a test");
    if (!buffer) throw std::runtime_error(buffer.error().message);
    return std::move(*buffer);
  }

  Stream stream_;
};

// Values as they are stored in 16 bits, with what they are worth.
struct HalfTensor {
  std::vector<uint16_t> stored;
  std::vector<float> values;
};

inline uint16_t to_stored(float x, Dtype dtype) {
  if (dtype == Dtype::f16) {
    const __half h = __float2half_rn(x);
    return *reinterpret_cast<const uint16_t*>(&h);
  }
  const __nv_bfloat16 b = __float2bfloat16_rn(x);
  return *reinterpret_cast<const uint16_t*>(&b);
}

inline float to_value(uint16_t stored, Dtype dtype) {
  return dtype == Dtype::f16 ? half_to_float(stored) : bf16_to_float(stored);
}

inline std::vector<float> to_values(const std::vector<uint16_t>& stored, Dtype dtype) {
  std::vector<float> values;
  values.reserve(stored.size());
  for (const uint16_t s : stored) values.push_back(to_value(s, dtype));
  return values;
}

inline std::vector<float> random_floats(size_t count, std::mt19937& random, float scale = 1, float offset = 0) {
  std::normal_distribution<float> normal(0, 1);
  std::vector<float> values(count);
  for (float& v : values) v = offset + scale * normal(random);
  return values;
}

inline HalfTensor random_halves(size_t count, Dtype dtype, std::mt19937& random, float scale = 1, float offset = 0) {
  HalfTensor tensor;
  for (const float v : random_floats(count, random, scale, offset)) {
    tensor.stored.push_back(to_stored(v, dtype));
    tensor.values.push_back(to_value(tensor.stored.back(), dtype));
  }
  return tensor;
}

inline double tolerance_of(Dtype dtype) {
  return dtype == Dtype::f32   ? tests::kFloat32Tolerance
         : dtype == Dtype::f16 ? tests::kHalfTolerance
                               : tests::kBfloat16Tolerance;
}

// Every element is within `tolerance` of the reference, relative to max(1, |reference|). NaN never passes.
inline ::testing::AssertionResult near_reference(const std::vector<float>& actual, const std::vector<double>& reference,
                                                 double tolerance) {
  if (actual.size() != reference.size()) {
    return ::testing::AssertionFailure() << actual.size() << " elements instead of " << reference.size();
  }
  size_t wrong = 0;
  size_t worst = 0;
  double worst_error = -1;
  for (size_t i = 0; i < actual.size(); i++) {
    const double error = std::abs(actual[i] - reference[i]) / std::max(1.0, std::abs(reference[i]));
    if (error <= tolerance) continue;
    wrong++;
    if (error > worst_error || std::isnan(error)) {
      worst = i;
      worst_error = std::isnan(error) ? INFINITY : error;
    }
  }
  if (wrong == 0) return ::testing::AssertionSuccess();
  return ::testing::AssertionFailure() << wrong << " of " << actual.size() << " elements are wrong, the worst is "
                                       << worst << ": " << actual[worst] << " instead of " << reference[worst];
}

inline std::string dtype_name(Dtype dtype) {
  return std::string(name_of(dtype));
}

}  // namespace lorikeet::kernels
