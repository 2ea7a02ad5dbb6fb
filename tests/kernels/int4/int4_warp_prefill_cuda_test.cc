// The int4 product of more than 64 tokens as cards without Hopper's warpgroup steps make it, on whatever device is here.
#include "kernels/int4/prefill/int4_warp_prefill.h"

#include <gtest/gtest.h>

#include "tests/kernels/int4/int4_gemm_cuda_test.h"

namespace lorikeet::kernels {
namespace {

class Int4WarpPrefillCuda : public Int4GemmCuda {
 protected:
  static Int4DecodeDevice card(int32_t multiprocessors, uint64_t shared_kib) {
    Int4DecodeDevice card;
    card.multiprocessors = multiprocessors;
    card.shared_bytes_per_block = shared_kib << 10;
    return card;
  }
  static Int4WarpPrefillScratch make_scratch(const Int4DecodeDevice& device) {
    Result<Int4WarpPrefillScratch> scratch = Int4WarpPrefillScratch::make(device);
    if (!scratch) throw std::runtime_error(scratch.error().message);
    return std::move(*scratch);
  }
  std::vector<uint16_t> multiply_in(const PackedInt4Weight& weight, const HalfTensor& x, const Call& call,
                                    const Int4WarpPrefillShape& shape, const Int4WarpPrefillScratch& scratch) {
    return run(weight, x, call,
               [&](const Int4GemmArgs& args) { int4_warp_prefill(weight, args, shape, scratch, stream_); });
  }
};

class Int4WarpPrefillCudaOfDtype : public Int4WarpPrefillCuda, public ::testing::WithParamInterface<Dtype> {};

TEST_P(Int4WarpPrefillCudaOfDtype, AgreesWithTheReferenceInEveryShape) {
  const Dtype dtype = GetParam();
  int shared = 0;
  for (const auto& [n, k] :
       sizes<std::pair<int32_t, int32_t>>({{200, 1376}, {40, 32}, {1000, 2592}}, {{200, 1376}, {40, 32}})) {
    for (const Int4Kind kind : {Int4Kind{128}, Int4Kind{128, true}, Int4Kind{32}, Int4Kind{0, true}}) {
      if (takes_few_sizes() && n == 40 && kind.group != 32) continue;
      const Int4Weight w = random_int4(n, k, kind, random_);
      const PackedInt4Weight packed = pack(w);
      const int32_t step = n < 1000 ? 3 : 17;
      for (const int32_t m : sizes({65, 130, 300}, {65, 130})) {
        if (takes_few_sizes() && m > 65 && kind.group != 32) continue;
        const HalfTensor x = random_halves(static_cast<size_t>(m) * static_cast<size_t>(k), dtype, random_);
        const std::vector<double> expected = reference(w, x, m, step);
        for (const Int4DecodeDevice& device : sizes({card(16, 99), card(46, 163), card(132, 227)}, {card(5, 163)})) {
          const Int4WarpPrefillScratch scratch = make_scratch(device);
          for (const Int4WarpPrefillShape& shape : int4_warp_prefill_shapes(packed, m, device)) {
            shared += shape.shares ? 1 : 0;
            const std::vector<uint16_t> y = multiply_in(packed, x, {dtype, m}, shape, scratch);
            ASSERT_TRUE(near_reference(every(y, dtype, m, n, step), expected, tolerance_of(dtype)))
                << "n " << n << " k " << k << " m " << m << " group " << kind.group << " asymmetric " << kind.asymmetric
                << " columns " << shape.columns << " blocks " << shape.blocks;
          }
        }
      }
    }
  }
  EXPECT_GT(shared, usual_or_few(50, 8));
}

INSTANTIATE_TEST_SUITE_P(, Int4WarpPrefillCudaOfDtype, ::testing::ValuesIn(kDtypes),
                         [](const auto& test) { return dtype_name(test.param); });

TEST_F(Int4WarpPrefillCuda, CompletesItsOutputsAsTheOtherProductsDo) {
  device_ = card(usual_or_few(28, 5), 99);
  for (const auto& [n, k] :
       sizes<std::pair<int32_t, int32_t>>({{96, 640}, {44, 352}, {264, 1024}}, {{44, 352}, {96, 640}})) {
    const Int4Weight gate = random_int4(n, k, {}, random_);
    const Int4Weight up = random_int4(n, k, {}, random_);
    const PackedInt4Weight pair = pack_pair(gate, up);
    const PackedInt4Weight alone = pack(gate);
    const auto outputs = static_cast<size_t>(n);
    const std::vector<float> bias = random_floats(2 * outputs, random_);
    for (const Dtype dtype : kDtypes) {
      for (const int32_t m : sizes({65, 128, 200}, {65, 130})) {
        const HalfTensor x = random_halves(static_cast<size_t>(m) * static_cast<size_t>(k), dtype, random_);
        const std::vector<double> g = reference(gate, x, m);
        const std::vector<double> u = reference(up, x, m);
        std::vector<double> biased;
        std::vector<double> both_biased;
        std::vector<double> activated;
        for (size_t row = 0; row < static_cast<size_t>(m); row++) {
          for (size_t output = 0; output < 2 * outputs; output++) {
            const size_t at = row * outputs + output % outputs;
            both_biased.push_back((output < outputs ? g : u)[at] + bias[output]);
            if (output >= outputs) continue;
            biased.push_back(g[at] + bias[output]);
            activated.push_back(g[at] / (1 + std::exp(-g[at])) * u[at]);
          }
        }
        const auto expect = [&](const PackedInt4Weight& weight, const Call& call, const std::vector<double>& expected,
                                const char* what) {
          EXPECT_TRUE(near_reference(to_values(multiply(weight, x, call), dtype), expected, tolerance_of(dtype)))
              << what << ", " << dtype_name(dtype) << " n " << n << " m " << m;
        };
        expect(alone, {dtype, m, &bias}, biased, "with a bias");
        expect(pair, {dtype, m, &bias}, both_biased, "a pair with a bias");
        expect(pair, {dtype, m, nullptr, true}, activated, "a pair with SiLU");
      }
    }
  }
}

TEST_F(Int4WarpPrefillCuda, TakesInputsInTheOrderOfActOrderCheckpoints) {
  for (const Int4DecodeDevice& described : sizes({card(28, 99), card(108, 163)}, {card(5, 163)})) {
    device_ = described;
    const Int4Weight w = random_int4(200, 1376, {0, true, true}, random_);
    const PackedInt4Weight packed = pack(w);
    for (const int32_t m : {66, kInt4WarpPrefillRows}) {
      const HalfTensor x = random_halves(static_cast<size_t>(m) * static_cast<size_t>(w.x_size), Dtype::bf16, random_);
      EXPECT_TRUE(near_reference(every(multiply(packed, x, {Dtype::bf16, m}), Dtype::bf16, m, w.n, 7),
                                 reference(w, x, m, 7), tests::kBfloat16Tolerance))
          << "m " << m;
    }
  }
}

TEST_F(Int4WarpPrefillCuda, LeavesMoreRowsToTheLibraryAndUnpacksTheWeightForIt) {
  device_ = card(28, 99);
  const int32_t m = kInt4WarpPrefillRows + 16;
  for (const Int4Kind kind : {Int4Kind{0, true, true}, Int4Kind{128}}) {
    const Int4Weight w = random_int4(200, 1376, kind, random_);
    for (const Dtype dtype : kDtypes) {
      const HalfTensor x = random_halves(static_cast<size_t>(m) * static_cast<size_t>(w.x_size), dtype, random_);
      EXPECT_TRUE(near_reference(every(multiply(pack(w), x, {dtype, m}), dtype, m, w.n, 7), reference(w, x, m, 7),
                                 tolerance_of(dtype)))
          << dtype_name(dtype);
    }
  }
}

TEST_F(Int4WarpPrefillCuda, GivesTheSameBitsWhoeverOfItsBlocksIsTheLast) {
  const Int4DecodeDevice device = card(std::min(device_.multiprocessors, 64), 99);
  const Int4WarpPrefillScratch scratch = make_scratch(device);
  const Int4Weight w = random_int4(usual_or_few(1000, 300), 5120, {}, random_);
  const PackedInt4Weight packed = pack(w);
  for (const int32_t m : sizes({70, 256}, {70})) {
    const HalfTensor x = random_halves(static_cast<size_t>(m) * 5120, Dtype::f16, random_);
    for (const Int4WarpPrefillShape& shape : int4_warp_prefill_shapes(packed, m, device)) {
      const std::vector<uint16_t> first = multiply_in(packed, x, {Dtype::f16, m}, shape, scratch);
      // One product behind the other, with nothing between them.
      run(packed, x, {Dtype::f16, m}, [&](const Int4GemmArgs& args) {
        for (int i = 0; i < usual_or_few(20, 2); i++) int4_warp_prefill(packed, args, shape, scratch, stream_);
      });
      for (int i = 0; i < usual_or_few(5, 1); i++) {
        ASSERT_EQ(first, multiply_in(packed, x, {Dtype::f16, m}, shape, scratch))
            << "m " << m << " columns " << shape.columns << " blocks " << shape.blocks;
      }
      for (const int arrived : to_host<int>(scratch.arrived)) ASSERT_EQ(arrived, 0);
    }
  }
}

TEST_F(Int4WarpPrefillCuda, LeavesTheCallersMemoryBehindTheLastRowAlone) {
  device_ = card(28, 99);
  const Int4Weight w = random_int4(136, 256, {}, random_);
  const PackedInt4Weight packed = pack(w);
  const int32_t m = 67;
  const HalfTensor x = random_halves(static_cast<size_t>(m) * 256, Dtype::f16, random_);
  const DeviceBuffer x_device = to_device(x.stored);
  const DeviceBuffer y = poisoned(static_cast<size_t>(m + 80) * 136 * 2);
  Int4GemmArgs args;
  args.x = x_device.data();
  args.x_stride = 256;
  args.y = y.data();
  args.y_stride = 136;
  args.m = m;
  make_gemm(m, packed).run(packed, args, stream_);
  std::vector<uint16_t> stored = to_host<uint16_t>(y);
  for (size_t i = static_cast<size_t>(m) * 136; i < stored.size(); i++) ASSERT_EQ(stored[i], 0xffff) << i;
  stored.resize(static_cast<size_t>(m) * 136);
  EXPECT_TRUE(near_reference(to_values(stored, Dtype::f16), reference(w, x, m), tests::kHalfTolerance));
}

}  // namespace
}  // namespace lorikeet::kernels
