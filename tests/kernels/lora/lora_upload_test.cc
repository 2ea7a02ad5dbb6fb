#include "kernels/lora/lora_upload.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <chrono>
#include <random>
#include <utility>
#include <vector>

#include "tests/kernels/base/cuda_test.h"
#include "tests/kernels/base/held_stream.h"

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
  for (int round = 0; round < 2; ++round) ASSERT_TRUE(upload->copy(parts));
  EXPECT_TRUE(to_host<unsigned char>(to) == expected);
  EXPECT_TRUE(upload->copy({}));
}

// Few parts, and more than may be on their way at once: the wait in the middle, and the one at the end.
TEST_F(LoraUploadCuda, FailsWhereTheDeviceDoesNotCopyInTimeAndGoesOnWhenItHas) {
  for (const uint64_t pieces : {uint64_t{2}, uint64_t{LoraUpload::kPieces + 5}}) {
    Result<LoraUpload> upload = LoraUpload::make(std::chrono::milliseconds(5));
    ASSERT_TRUE(upload) << upload.error().message;
    const std::vector<unsigned char> from(pieces * LoraUpload::kPieceBytes, 0x5a);
    const DeviceBuffer to = zeroed(from.size());
    stream_.synchronize();
    const std::vector<UploadPart> parts = {{to.data(), from.data(), from.size()}};
    HeldStream held(upload->stream());
    EXPECT_THAT(upload->copy(parts).error().message, ::testing::HasSubstr("has not ended what it was given"));
    EXPECT_THAT(upload->copy(parts).error().message, ::testing::HasSubstr("has not ended an earlier copy"));
    held.release();
    upload->stream().synchronize();
    EXPECT_TRUE(upload->settled());
    while (!upload->copy(parts)) upload->stream().synchronize();
    EXPECT_TRUE(to_host<unsigned char>(to) == from);
  }
}

// As slices come: sealed memory, of which parts are wanted from places that are no multiples of pages.
TEST_F(LoraUploadCuda, BringsPartsOfSealedMemory) {
  Result<LoraUpload> upload = LoraUpload::make();
  ASSERT_TRUE(upload) << upload.error().message;
  constexpr uint64_t kBytes = 3 * LoraUpload::kPieceBytes + 4321;
  std::vector<unsigned char> bytes(kBytes);
  std::mt19937 random(8);
  for (unsigned char& byte : bytes) byte = static_cast<unsigned char>(random());
  auto memory = ResidentMemory::make("upload").value();
  ASSERT_TRUE(memory.write(0, bytes));
  ASSERT_TRUE(memory.seal());
  std::vector<unsigned char> expected(kBytes, 0xee);
  const DeviceBuffer to = to_device(expected);
  std::vector<UploadPart> parts;
  for (const auto& [from, count] : {std::pair<uint64_t, uint64_t>{777, 2 * LoraUpload::kPieceBytes},
                                    {2 * LoraUpload::kPieceBytes + 5000, kBytes - 2 * LoraUpload::kPieceBytes - 5000},
                                    {0, 700}}) {
    parts.push_back({to.as<unsigned char>() + from, memory.bytes().data() + from, count});
    std::copy_n(bytes.data() + from, count, expected.data() + from);
  }
  ASSERT_TRUE(upload->copy(parts, &memory));
  EXPECT_TRUE(to_host<unsigned char>(to) == expected);
}

}  // namespace
}  // namespace lorikeet::kernels
