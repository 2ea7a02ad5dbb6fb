// Sums in two shots with the norm behind them.
#include <gtest/gtest.h>

#include "kernels/layer/rms_norm_cuda.h"
#include "tests/kernels/base/cuda_test.h"
#include "tests/kernels/peer/two_ranks.h"

namespace lorikeet::kernels {
namespace {

[[maybe_unused]] const bool loads_all_kernels = TwoRanks::load_all_kernels();

constexpr uint64_t kLongNs = 20'000'000'000;
constexpr size_t kRandom = 65'521;   // values, which are used again: a prime, so that rows differ
constexpr int32_t kMostBlocks = 24;  // of a rank: rows go upwards, so it ends where not all find room at once, too

class TwoShotNorm : public CudaTest {
 protected:
  template <class T>
  static std::vector<T> repeated(const std::vector<T>& values, size_t count) {
    std::vector<T> all(count);
    for (size_t i = 0; i < count; i++) all[i] = values[i % values.size()];
    return all;
  }

  // The parts of both ranks are added in their order and rounded once; then as without ranks.
  void expect_bits(TwoRanks& ranks, int32_t tokens, int32_t width, Dtype dtype) {
    const auto count = static_cast<size_t>(tokens) * static_cast<size_t>(width);
    const std::vector<float> residual = repeated(random_floats(kRandom, random_, 3), count);
    const DeviceBuffer weight = to_device(random_floats(static_cast<size_t>(width), random_, 0.3F, 1));
    std::array<HalfTensor, TwoRanks::kRanks> parts;
    std::array<DeviceBuffer, TwoRanks::kRanks> delta, stream, out;
    for (size_t r = 0; r < parts.size(); r++) {
      const HalfTensor random = random_halves(kRandom, dtype, random_);
      parts[r] = {repeated(random.stored, count), repeated(random.values, count)};
      delta[r] = to_device(parts[r].stored);
      stream[r] = to_device(residual);
      out[r] = poisoned(count * 2);
    }
    stream_.synchronize();
    AddRmsNormArgs args;
    args.weight = weight.as<float>();
    args.epsilon = 1e-6F;
    args.dtype = dtype;
    args.tokens = tokens;
    args.width = width;
    for (size_t r = 0; r < parts.size(); r++) {
      args.residual = stream[r].as<float>();
      args.delta = delta[r].data();
      args.out = out[r].data();
      peer_two_shot_norm_cuda(ranks.group(r), args, ranks.stream(r));
    }
    for (size_t r = 0; r < parts.size(); r++) ranks.stream(r).synchronize();
    ASSERT_EQ(ranks.failure(), PeerFailure::none);

    std::vector<uint16_t> sum(count);
    for (size_t i = 0; i < count; i++) sum[i] = to_stored(parts[0].values[i] + parts[1].values[i], dtype);
    const DeviceBuffer expected_stream = to_device(residual);
    const DeviceBuffer expected = poisoned(count * 2);
    const DeviceBuffer summed = to_device(sum);
    args.residual = expected_stream.as<float>();
    args.delta = summed.data();
    args.out = expected.data();
    add_rms_norm_cuda(args, stream_);
    for (size_t r = 0; r < parts.size(); r++) {
      EXPECT_EQ(to_host<float>(stream[r]), to_host<float>(expected_stream))
          << tokens << " x " << width << " " << dtype_name(dtype) << ", rank " << r;
      EXPECT_EQ(to_host<uint16_t>(out[r]), to_host<uint16_t>(expected))
          << tokens << " x " << width << " " << dtype_name(dtype) << ", rank " << r;
    }
  }

  std::mt19937 random_{3};
};

TEST_F(TwoShotNorm, HasTheBitsOfASumAndANorm) {
  TwoRanks ranks(kLongNs, kMostBlocks);
  for (const Dtype dtype : {Dtype::f16, Dtype::bf16}) {
    for (const int32_t width : {264, 5120, 8192}) {
      for (const int32_t tokens : sizes({1, 2, 48, 49, 130}, {2, 49})) {
        expect_bits(ranks, tokens, width, dtype);
        if (HasFatalFailure()) return;
      }
    }
  }
  // In more pieces than one.
  expect_bits(ranks, 2100, 5120, Dtype::f16);
}

}  // namespace
}  // namespace lorikeet::kernels
