#include "kernels/lora/lora_upload.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <random>
#include <vector>

#include "tests/kernels/base/cuda_test.h"

namespace lorikeet::kernels {
namespace {

class LoraUploadCuda : public CudaTest {};

// Parts that are no multiples of anything, and more of them than the ring has room for; from memory that is not aligned.
TEST_F(LoraUploadCuda, BringsPartsOfEverySizeToTheirPlaces) {
  Result<LoraUpload> upload = LoraUpload::make();
  ASSERT_TRUE(upload) << upload.error().message;
  constexpr uint64_t kRing = LoraUpload::kPieces * LoraUpload::kPieceBytes;
  const std::vector<uint64_t> sizes = {1, 511, LoraUpload::kPieceBytes, LoraUpload::kPieceBytes + 3, 2 * kRing + 17};
  uint64_t bytes = 0;
  for (const uint64_t size : sizes) bytes += size + 5;
  std::vector<unsigned char> from(bytes + 1), expected(bytes, 0xee);
  std::mt19937 random(7);
  for (unsigned char& byte : from) byte = static_cast<unsigned char>(random());
  const DeviceBuffer to = to_device(expected);
  std::vector<UploadPart> parts;
  uint64_t at = 0;
  for (const uint64_t size : sizes) {
    parts.push_back({to.as<unsigned char>() + at, from.data() + at + 1, size});
    std::copy_n(from.data() + at + 1, size, expected.data() + at);
    at += size + 5;
  }
  for (int round = 0; round < 2; ++round) upload->copy(parts);
  EXPECT_TRUE(to_host<unsigned char>(to) == expected);
  upload->copy({});
}

}  // namespace
}  // namespace lorikeet::kernels
