// The int4 product of more than 64 tokens on Hopper, in every shape and as if the device were smaller.
#include "kernels/int4/prefill/int4_prefill.h"

#include <gtest/gtest.h>

#include <cmath>

#include "tests/kernels/int4/int4_gemm_cuda_test.h"

namespace lorikeet::kernels {
namespace {

class Int4PrefillCuda : public Int4GemmCuda {
 protected:
  void SetUp() override {
    Int4GemmCuda::SetUp();
    if (!IsSkipped() && !int4_prefill_available()) GTEST_SKIP() << "needs warpgroup steps";
  }
  static Int4PrefillScratch make_scratch(int32_t multiprocessors) {
    Result<Int4PrefillScratch> scratch = Int4PrefillScratch::make(multiprocessors);
    if (!scratch) throw std::runtime_error(scratch.error().message);
    return std::move(*scratch);
  }
  std::vector<uint16_t> multiply_in(const PackedInt4Weight& weight, const HalfTensor& x, const Call& call,
                                    const Int4PrefillShape& shape, const Int4PrefillScratch& scratch) {
    return run(weight, x, call, [&](const Int4GemmArgs& args) { int4_prefill(weight, args, shape, scratch, stream_); });
  }
};

class Int4PrefillCudaOfDtype : public Int4PrefillCuda, public ::testing::WithParamInterface<Dtype> {};

TEST_P(Int4PrefillCudaOfDtype, AgreesWithTheReferenceInEveryShape) {
  const Dtype dtype = GetParam();
  int shared = 0;
  for (const auto& [n, k] :
       sizes<std::pair<int32_t, int32_t>>({{200, 1376}, {40, 32}, {1000, 2592}, {776, 4000}}, {{200, 1376}})) {
    for (const Int4Kind kind : {Int4Kind{128}, Int4Kind{128, true}, Int4Kind{32}, Int4Kind{0, true}}) {
      const Int4Weight w = random_int4(n, k, kind, random_);
      const PackedInt4Weight packed = pack(w);
      const int32_t step = n < 776 ? 3 : 17;
      for (const int32_t m : sizes({65, 81, 130, 300}, {65, 300})) {
        if (takes_few_sizes() && m > 65 && kind.group != 32) continue;
        const HalfTensor x = random_halves(static_cast<size_t>(m) * static_cast<size_t>(k), dtype, random_);
        const std::vector<double> expected = reference(w, x, m, step);
        for (const int32_t multiprocessors : sizes({1, 3, 16, 132}, {3})) {
          const Int4PrefillScratch scratch = make_scratch(multiprocessors);
          for (const Int4PrefillShape& shape : int4_prefill_shapes(packed, m, multiprocessors)) {
            shared += shape.shares ? 1 : 0;
            const std::vector<uint16_t> y = multiply_in(packed, x, {dtype, m}, shape, scratch);
            ASSERT_TRUE(near_reference(every(y, dtype, m, n, step), expected, tolerance_of(dtype)))
                << "n " << n << " k " << k << " m " << m << " group " << kind.group << " asymmetric " << kind.asymmetric
                << " columns " << shape.columns << " clusters " << shape.clusters << " of " << shape.cluster
                << " alone " << shape.alone << " shares " << shape.shares;
          }
        }
      }
    }
  }
  EXPECT_GT(shared, usual_or_few(50, 8));
}

INSTANTIATE_TEST_SUITE_P(, Int4PrefillCudaOfDtype, ::testing::ValuesIn(kDtypes),
                         [](const auto& test) { return dtype_name(test.param); });

TEST_F(Int4PrefillCuda, CompletesItsOutputsAsTheOtherProductsDoInEveryShape) {
  const int32_t n = 136;
  const int32_t k = 640;
  const auto outputs = static_cast<size_t>(n);
  const Int4Weight gate = random_int4(n, k, {}, random_);
  const Int4Weight up = random_int4(n, k, {}, random_);
  const PackedInt4Weight pair = pack_pair(gate, up);
  const std::vector<float> bias = random_floats(2 * outputs, random_);
  const Int4PrefillScratch scratch = make_scratch(16);
  for (const int32_t m : sizes({65, 85, 130}, {85})) {
    const HalfTensor x = random_halves(static_cast<size_t>(m) * static_cast<size_t>(k), Dtype::f16, random_);
    const std::vector<double> g = reference(gate, x, m);
    const std::vector<double> u = reference(up, x, m);
    std::vector<double> biased;
    std::vector<double> activated;
    for (size_t row = 0; row < static_cast<size_t>(m); row++) {
      for (size_t output = 0; output < 2 * outputs; output++) {
        const size_t at = row * outputs + output % outputs;
        biased.push_back((output < outputs ? g : u)[at] + bias[output]);
        if (output < outputs) activated.push_back(g[at] / (1 + std::exp(-g[at])) * u[at]);
      }
    }
    for (const Int4PrefillShape& shape : int4_prefill_shapes(pair, m, 16)) {
      const auto expect = [&](const Call& call, const std::vector<double>& expected, const char* what) {
        EXPECT_TRUE(near_reference(to_values(multiply_in(pair, x, call, shape, scratch), Dtype::f16), expected,
                                   tests::kHalfTolerance))
            << what << ", m " << m << " columns " << shape.columns << " clusters " << shape.clusters << " of "
            << shape.cluster << " alone " << shape.alone;
      };
      expect({Dtype::f16, m, &bias}, biased, "with a bias");
      expect({Dtype::f16, m, nullptr, true}, activated, "with SiLU");
    }
  }
}

TEST_F(Int4PrefillCuda, GivesTheSameBitsWhoeverOfItsBlocksIsTheLast) {
  for (const int32_t multiprocessors : {std::min(device_.multiprocessors, 132), usual_or_few(50, 4)}) {
    const Int4PrefillScratch scratch = make_scratch(multiprocessors);
    const Int4Weight w = random_int4(usual_or_few(1000, 300), 5120, {}, random_);
    const PackedInt4Weight packed = pack(w);
    for (const int32_t m : sizes({70, 256}, {70})) {
      const HalfTensor x = random_halves(static_cast<size_t>(m) * 5120, Dtype::f16, random_);
      for (const Int4PrefillShape& shape : int4_prefill_shapes(packed, m, multiprocessors)) {
        const std::vector<uint16_t> first = multiply_in(packed, x, {Dtype::f16, m}, shape, scratch);
        // One product behind the other, with nothing between them.
        run(packed, x, {Dtype::f16, m}, [&](const Int4GemmArgs& args) {
          for (int i = 0; i < usual_or_few(20, 2); i++) int4_prefill(packed, args, shape, scratch, stream_);
        });
        for (int i = 0; i < usual_or_few(5, 1); i++) {
          ASSERT_EQ(first, multiply_in(packed, x, {Dtype::f16, m}, shape, scratch))
              << "m " << m << " columns " << shape.columns << " clusters " << shape.clusters << " of " << shape.cluster
              << " alone " << shape.alone;
        }
        for (const int arrived : to_host<int>(scratch.arrived)) ASSERT_EQ(arrived, 0);
      }
    }
  }
}

// Rows of some of a prompt get the bits that they have among all, where prompts are made in parts.
TEST_F(Int4PrefillCuda, GivesARowTheSameBitsInPartsOfManyRows) {
  const int32_t m = kInt4WholeAreaRows + 70;
  const int32_t k = 640;
  const Int4Weight w = random_int4(usual_or_few(1000, 200), k, {}, random_);
  const PackedInt4Weight packed = pack(w);
  const HalfTensor x = random_halves(static_cast<size_t>(m) * static_cast<size_t>(k), Dtype::f16, random_);
  Int4Gemm gemm = make_gemm(m, packed);
  const std::vector<uint16_t> all = multiply(packed, x, {Dtype::f16, m});
  const std::vector<uint16_t> parts = run(packed, x, {Dtype::f16, m}, [&](const Int4GemmArgs& args) {
    int32_t begin = 0;
    for (const int32_t rows : {768, m - 768}) {
      Int4GemmArgs part = args;
      part.x = static_cast<const uint16_t*>(args.x) + begin * args.x_stride;
      part.y = static_cast<uint16_t*>(args.y) + begin * args.y_stride;
      part.m = rows;
      gemm.run(packed, part, stream_, false, m);
      begin += rows;
    }
  });
  EXPECT_EQ(all, parts);
}

TEST_F(Int4PrefillCuda, LeavesTheCallersMemoryBehindTheLastRowAndOutputAlone) {
  for (const int32_t outputs : sizes({136, 130, 250}, {136, 130})) {
    const Int4Weight w = random_int4(outputs, 256, {}, random_);
    const PackedInt4Weight packed = pack(w);
    const int32_t m = 67;
    const int32_t stride = outputs + 2;
    const HalfTensor x = random_halves(static_cast<size_t>(m) * 256, Dtype::f16, random_);
    const DeviceBuffer x_device = to_device(x.stored);
    const DeviceBuffer y = poisoned(static_cast<size_t>(m + 80) * static_cast<size_t>(stride) * 2);
    Int4GemmArgs args;
    args.x = x_device.data();
    args.x_stride = 256;
    args.y = y.data();
    args.y_stride = stride;
    args.m = m;
    make_gemm(m, packed).run(packed, args, stream_);
    const std::vector<uint16_t> stored = to_host<uint16_t>(y);
    std::vector<uint16_t> product;
    for (size_t i = 0; i < stored.size(); i++) {
      const size_t row = i / static_cast<size_t>(stride);
      const size_t column = i % static_cast<size_t>(stride);
      if (row < static_cast<size_t>(m) && column < static_cast<size_t>(outputs)) {
        product.push_back(stored[i]);
      } else {
        ASSERT_EQ(stored[i], 0xffff) << "row " << row << " output " << column;
      }
    }
    EXPECT_TRUE(near_reference(to_values(product, Dtype::f16), reference(w, x, m), tests::kHalfTolerance));
  }
}

}  // namespace
}  // namespace lorikeet::kernels
