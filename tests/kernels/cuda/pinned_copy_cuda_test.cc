#include "kernels/cuda/pinned_copy_cuda.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <cstdint>
#include <numeric>
#include <vector>

#include "tests/kernels/base/cuda_test.h"

namespace lorikeet::kernels {
namespace {

class PinnedCopyCuda : public CudaTest {};

TEST_F(PinnedCopyCuda, CopiesSoManyBytesAndNoOthersAsTheHostHasThemEachTime) {
  constexpr uint64_t kBytes = 1 << 18;
  auto host = PinnedBuffer::allocate(kBytes, "a test");
  ASSERT_TRUE(host) << host.error().message;
  for (const uint64_t bytes :
       {uint64_t{0}, uint64_t{16}, uint64_t{4096}, uint64_t{4109}, uint64_t{128 << 10}, kBytes - 3}) {
    const DeviceBuffer device = poisoned(kBytes);
    std::vector<uint8_t> expected(kBytes, 0xff);
    for (int round = 0; round < 3; ++round) {
      std::iota(host->as<uint8_t>(), host->as<uint8_t>() + kBytes, static_cast<uint8_t>(17 * round));
      std::copy_n(host->as<uint8_t>(), bytes, expected.begin());
      copy_pinned_to_device(device.data(), host->data(), bytes, stream_);
      EXPECT_TRUE(to_host<uint8_t>(device) == expected) << bytes << " bytes, round " << round;
    }
  }
}

}  // namespace
}  // namespace lorikeet::kernels
