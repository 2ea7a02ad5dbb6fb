#include "kernels/cuda/floors_cuda.h"

#include <gtest/gtest.h>

#include "tests/kernels/base/cuda_test.h"

namespace lorikeet::kernels {
namespace {

class FloorsCuda : public CudaTest {};

TEST_F(FloorsCuda, MeasureMemoryWithABufferOfAnySize) {
  const double least = usual_or_few(1e9, 0.0);  // a gigabyte a second, whatever the device
  for (const uint64_t mebibytes : sizes<uint64_t>({64, 512}, {1})) {
    const auto floors = measure_cuda_memory(mebibytes << 20, stream_);
    ASSERT_TRUE(floors) << floors.error().message;
    EXPECT_GT(floors->read, least);
    EXPECT_GT(floors->copy, least);
  }
}

TEST(FloorsOfADevice, LeaveItAsIfNothingHadRun) {
  if (const auto count = device_count(); !count || *count == 0) GTEST_SKIP() << "there is no CUDA device";
  const auto measured = measure_cuda_device(0);
  ASSERT_TRUE(measured) << measured.error().message;
  EXPECT_FALSE(measured->name.empty());
  EXPECT_GT(measured->floors.f16_flops, 1e9);
  ASSERT_TRUE(use_device(0));
  EXPECT_TRUE(DeviceBuffer::allocate(1 << 20, "a test"));
}

TEST(FloorsOfADevice, RefuseOneThatDoesNotExist) {
  EXPECT_FALSE(measure_cuda_device(1000));
}

}  // namespace
}  // namespace lorikeet::kernels
