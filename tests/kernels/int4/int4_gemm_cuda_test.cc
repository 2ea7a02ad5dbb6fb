#include "kernels/int4/int4_gemm_cuda.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <utility>

#include "kernels/int4/decode/int4_decode.h"
#include "kernels/layer/rms_norm_cuda.h"
#include "tests/kernels/int4/int4_gemm_cuda_test.h"

namespace lorikeet::kernels {
namespace {

TEST_F(Int4GemmCuda, UnpacksWhatItPacked) {
  for (const Int4Kind kind : {Int4Kind{128}, Int4Kind{64, true}, Int4Kind{32}, Int4Kind{0, true, true}}) {
    const Int4Weight w = random_int4(50, 416, kind, random_);
    const PackedInt4Weight packed = pack(w);
    ASSERT_EQ(packed.tiles, 4);
    const DeviceBuffer out = poisoned(64 * 416 * 2);
    dequantize_cuda(packed, Dtype::f16, out.data(), 0, packed.tiles, stream_);
    const std::vector<float> values = to_values(to_host<uint16_t>(out), Dtype::f16);
    Int4Weight stored = w;  // in the stored order of the inputs
    stored.permutation.clear();
    stored.x_size = w.k;
    std::vector<double> expected(64 * 416, 0.0);
    for (int32_t n = 0; n < w.n; n++) {
      const std::vector<double> row = int4_row(stored, n);
      std::copy(row.begin(), row.end(), expected.begin() + n * 416);
    }
    EXPECT_TRUE(near_reference(values, expected, 1e-4)) << "group " << kind.group;
  }
}

TEST_P(Int4GemmCudaOfDtype, AgreesWithTheReferenceForEveryKindOfWeight) {
  const Dtype dtype = GetParam();
  for (const Int4Kind kind : {Int4Kind{128}, Int4Kind{128, true}, Int4Kind{64}, Int4Kind{32, true}, Int4Kind{0},
                              Int4Kind{128, false, true}, Int4Kind{0, true, true}}) {
    for (const auto& [n, k] : sizes<std::pair<int32_t, int32_t>>(
             {{16, 128}, {40, 32}, {7, 416}, {200, 1376}, {1000, 2592}}, {{7, 32}, {200, 1376}})) {
      const Int4Weight w = random_int4(n, k, kind, random_);
      const PackedInt4Weight packed = pack(w);
      for (const int32_t m : sizes({1, 2, 5, 8, 9, 16, 23, 64, 65, 130}, {1, 5, 9, 23, 48, 64, 65})) {
        if (takes_few_sizes() && n == 7 && m != 5 && m != 64) continue;
        const HalfTensor x = random_halves(static_cast<size_t>(m) * static_cast<size_t>(w.x_size), dtype, random_);
        const std::vector<uint16_t> y = multiply(packed, x, {dtype, m});
        const int32_t step = n < 1000 ? 1 : 13;
        ASSERT_TRUE(near_reference(every(y, dtype, m, n, step), reference(w, x, m, step), tolerance_of(dtype)))
            << "n " << n << " k " << k << " m " << m << " group " << kind.group << " asymmetric " << kind.asymmetric
            << " act-order " << kind.act_order;
      }
    }
  }
}

TEST_P(Int4GemmCudaOfDtype, AgreesWithTheReferenceAtTheShapesOf14B) {
  const Dtype dtype = GetParam();
  for (const auto& [n, k] : sizes<std::pair<int32_t, int32_t>>(
           {{7168, 5120}, {5120, 5120}, {5120, 13824}, {5120, 13696}, {5120, 6912}, {27648, 5120}}, {{384, 13824}})) {
    const Int4Weight w = random_int4(n, k, {}, random_);
    const PackedInt4Weight packed = pack(w);
    for (const int32_t m : sizes({1, 8, 16, 32, 33, 64, 128, 400}, {8, 33, 128})) {
      const HalfTensor x = random_halves(static_cast<size_t>(m) * static_cast<size_t>(k), dtype, random_);
      const std::vector<uint16_t> y = multiply(packed, x, {dtype, m});
      const int32_t step = 97;  // coprime to the tiles: all rows of tiles and all blocks are visited
      EXPECT_TRUE(near_reference(every(y, dtype, m, n, step), reference(w, x, m, step), tolerance_of(dtype)))
          << "n " << n << " k " << k << " m " << m;
    }
  }
}

TEST_P(Int4GemmCudaOfDtype, GivesARowTheSameBitsInAnyBatch) {
  const Dtype dtype = GetParam();
  for (const auto& [n, k] :
       sizes<std::pair<int32_t, int32_t>>({{5120, 5120}, {1024, 13824}, {328, 1376}}, {{328, 1376}})) {
    const Int4Weight w = random_int4(n, k, {128, true}, random_);
    const PackedInt4Weight packed = pack(w);
    const HalfTensor x = random_halves(static_cast<size_t>(kInt4DecodeRows) * static_cast<size_t>(k), dtype, random_);
    const std::vector<uint16_t> all = multiply(packed, x, {dtype, kInt4DecodeRows});
    for (const int32_t m : sizes({1, 3, 8, 12, 17, 33, 40}, {3, 12, 33})) {
      const std::vector<uint16_t> some = multiply(packed, x, {dtype, m});
      EXPECT_TRUE(std::equal(some.begin(), some.end(), all.begin())) << "n " << n << " k " << k << " m " << m;
      EXPECT_EQ(some, multiply(packed, x, {dtype, m, nullptr, false, true})) << "behind a sum";
    }
  }
}

TEST_P(Int4GemmCudaOfDtype, GivesTheSameBitsForEveryShapeOfTheLaunch) {
  using X = Int4DecodeWish::X;
  using Steps = Int4DecodeWish::Steps;
  const Dtype dtype = GetParam();
  for (const auto& [n, k] :
       sizes<std::pair<int32_t, int32_t>>({{2048, 5120}, {5000, 416}, {40000, 1152}, {72, 32}}, {{328, 1280}})) {
    for (const Int4Kind kind : {Int4Kind{128}, Int4Kind{128, true}, Int4Kind{32}, Int4Kind{32, true}}) {
      const Int4Weight w = random_int4(n, k, kind, random_);
      const PackedInt4Weight packed = pack(w);
      for (const int32_t m : sizes({1, 3, 8, 11, 16, 32, 57}, {3, 11, 32, 57})) {
        const HalfTensor x = random_halves(static_cast<size_t>(m) * static_cast<size_t>(k), dtype, random_);
        const std::vector<uint16_t> first = multiply(packed, x, {dtype, m});
        for (const Int4DecodeWish& wish :
             {Int4DecodeWish{X::kept}, Int4DecodeWish{X::kept, 1}, Int4DecodeWish{X::kept, 1, 3, false, 2},
              Int4DecodeWish{X::kept, 2, 3, true, 1}, Int4DecodeWish{X::kept, 2, 2, true, 3},
              Int4DecodeWish{X::kept, 2, 6, true, 2}, Int4DecodeWish{X::streamed, 1},
              Int4DecodeWish{X::streamed, 1, 2, false}, Int4DecodeWish{X::streamed, 4},
              Int4DecodeWish{X::streamed, 4, 4}, Int4DecodeWish{X::streamed, 1, 0, true, 0, Steps::of_warps},
              Int4DecodeWish{X::streamed, 4, 3, true, 0, Steps::of_warps}}) {
          if (!int4_decode_fits(packed, m, wish, device_)) continue;
          EXPECT_EQ(first, multiply(packed, x, {dtype, m}, wish))
              << n << "x" << k << " group " << kind.group << " m " << m << " kept " << (wish.x == X::kept)
              << " cluster " << wish.cluster << " depth " << wish.depth << " of warps "
              << (wish.steps == Steps::of_warps);
        }
      }
    }
  }
}

TEST_P(Int4GemmCudaOfDtype, MakesTheNormOfItsInputWithTheBitsOfTheNormsKernel) {
  using X = Int4DecodeWish::X;
  const Dtype dtype = GetParam();
  for (const auto& [n, k] : sizes<std::pair<int32_t, int32_t>>({{7168, 5120}, {5000, 640}, {40, 128}, {72, 6144}},
                                                               {{200, 640}, {72, 6144}})) {
    const Int4Weight w = random_int4(n, k, {}, random_);
    const PackedInt4Weight packed = pack(w);
    const DeviceBuffer weight = to_device(random_floats(static_cast<size_t>(k), random_, 0.3F, 1));
    for (const int32_t m : {1, 2}) {
      for (const bool with_delta : {true, false}) {
        const auto count = static_cast<size_t>(m) * static_cast<size_t>(k);
        const std::vector<float> residual = random_floats(count, random_, 3);
        const DeviceBuffer before = to_device(residual);
        const DeviceBuffer in_place = to_device(residual);
        const DeviceBuffer delta = to_device(random_halves(count, dtype, random_).stored);
        const DeviceBuffer x = poisoned(count * 2);
        AddRmsNormArgs norm;
        norm.residual = in_place.as<float>();
        norm.delta = with_delta ? delta.data() : nullptr;
        norm.weight = weight.as<float>();
        norm.epsilon = 1e-6F;
        norm.out = x.data();
        norm.dtype = dtype;
        norm.tokens = m;
        norm.width = k;
        add_rms_norm_cuda(norm, stream_);
        for (const int32_t cluster : {1, 2}) {
          const Int4DecodeWish wish{X::kept, cluster};
          if (!int4_decode_fits(packed, m, wish, device_)) continue;
          const Int4DecodeShape shape = shape_int4_decode(packed, m, dtype, wish, device_);
          ASSERT_TRUE(int4_decode_takes_norm(packed, shape));
          const DeviceBuffer expected = poisoned(static_cast<size_t>(m * n) * 2);
          const DeviceBuffer y = poisoned(static_cast<size_t>(m * n) * 2);
          const DeviceBuffer sum = poisoned(count * sizeof(float));
          Int4GemmArgs args;
          args.x = x.data();
          args.x_stride = k;
          args.dtype = dtype;
          args.y = expected.data();
          args.y_stride = n;
          args.m = m;
          int4_decode(packed, args, shape, stream_);
          args.x = nullptr;
          args.y = y.data();
          args.norm = {before.as<float>(), norm.delta, with_delta ? sum.as<float>() : nullptr, norm.weight, 1e-6F};
          int4_decode(packed, args, shape, stream_, /*beside=*/shape.leaves_room);
          EXPECT_EQ(to_host<uint16_t>(expected), to_host<uint16_t>(y))
              << n << "x" << k << " m " << m << " cluster " << cluster;
          if (with_delta) {
            EXPECT_EQ(to_host<float>(in_place), to_host<float>(sum));
          }
          EXPECT_EQ(to_host<float>(before), residual);
        }
      }
    }
  }
}

TEST_F(Int4GemmCuda, PutsPartsThatShareAnInputBehindEachOther) {
  const Int4Weight q = random_int4(200, 640, {}, random_);
  const Int4Weight k = random_int4(40, 640, {}, random_);
  const Int4Weight v = random_int4(72, 640, {}, random_);
  const Int4Weight* parts[] = {&q, &k, &v};
  const PackedInt4Weight packed = pack_parts(parts);
  ASSERT_EQ(packed.n, 312);
  const std::vector<float> bias = random_floats(312, random_);
  for (const Dtype dtype : kDtypes) {
    for (const int32_t m : sizes({1, 7, 20, 50, 70}, {7, 20, 70})) {
      const HalfTensor x = random_halves(static_cast<size_t>(m) * 640, dtype, random_);
      std::vector<double> expected;
      std::vector<double> part_results[3];
      for (int i = 0; i < 3; i++) part_results[i] = reference(*parts[i], x, m);
      for (int32_t row = 0; row < m; row++) {
        for (int i = 0; i < 3; i++) {
          const auto begin = part_results[i].begin() + static_cast<ptrdiff_t>(row) * parts[i]->n;
          expected.insert(expected.end(), begin, begin + parts[i]->n);
        }
        for (size_t n = 0; n < 312; n++) expected[static_cast<size_t>(row) * 312 + n] += bias[n];
      }
      EXPECT_TRUE(
          near_reference(to_values(multiply(packed, x, {dtype, m, &bias}), dtype), expected, tolerance_of(dtype)))
          << dtype_name(dtype) << " m " << m;
    }
  }
}

TEST_P(Int4GemmCudaOfDtype, MultipliesPairsWithAndWithoutSilu) {
  const Dtype dtype = GetParam();
  for (const auto& [n, k] :
       sizes<std::pair<int32_t, int32_t>>({{96, 640}, {44, 352}, {13824, 5120}}, {{96, 640}, {44, 352}})) {
    const Int4Weight gate = random_int4(n, k, {128, true}, random_);
    const Int4Weight up = random_int4(n, k, {128, true}, random_);
    const PackedInt4Weight packed = pack_pair(gate, up);
    const int32_t step = n > 1000 ? 97 : 1;
    for (const int32_t m : {1, 6, 16, 65}) {
      const HalfTensor x = random_halves(static_cast<size_t>(m) * static_cast<size_t>(k), dtype, random_);
      std::vector<double> g = reference(gate, x, m, step);
      const std::vector<double> u = reference(up, x, m, step);
      const std::vector<uint16_t> plain = multiply(packed, x, {dtype, m});
      std::vector<uint16_t> gates;
      std::vector<uint16_t> ups;
      for (int32_t row = 0; row < m; row++) {
        const auto begin = plain.begin() + static_cast<ptrdiff_t>(row) * 2 * n;
        gates.insert(gates.end(), begin, begin + n);
        ups.insert(ups.end(), begin + n, begin + 2 * n);
      }
      EXPECT_TRUE(near_reference(every(gates, dtype, m, n, step), g, tolerance_of(dtype))) << "gate, m " << m;
      EXPECT_TRUE(near_reference(every(ups, dtype, m, n, step), u, tolerance_of(dtype))) << "up, m " << m;
      for (size_t i = 0; i < g.size(); i++) g[i] = g[i] / (1 + std::exp(-g[i])) * u[i];
      const std::vector<uint16_t> fused = multiply(packed, x, {dtype, m, nullptr, true});
      EXPECT_TRUE(near_reference(every(fused, dtype, m, n, step), g, tolerance_of(dtype))) << "n " << n << " m " << m;
    }
  }
}

TEST_F(Int4GemmCuda, ReplaysInAGraphWithNewInputs) {
  const Int4Weight w = random_int4(512, 1024, {}, random_);
  const PackedInt4Weight packed = pack(w);
  Int4Gemm gemm = make_gemm(4, packed);
  const DeviceBuffer x = poisoned(4 * 1024 * 2);
  const DeviceBuffer y = poisoned(4 * 512 * 2);
  Int4GemmArgs args;
  args.x = x.data();
  args.x_stride = 1024;
  args.y = y.data();
  args.y_stride = 512;
  args.m = 4;
  const Result<Graph> graph = Graph::capture(stream_, [&] { gemm.run(packed, args, stream_); });
  ASSERT_TRUE(graph) << graph.error().message;
  for (int round = 0; round < 3; round++) {
    const HalfTensor input = random_halves(4 * 1024, Dtype::f16, random_);
    copy_to_device(x.data(), input.stored.data(), x.bytes(), stream_);
    fill_bytes(y.data(), 0xff, y.bytes(), stream_);
    graph->launch(stream_);
    EXPECT_TRUE(
        near_reference(to_values(to_host<uint16_t>(y), Dtype::f16), reference(w, input, 4), tests::kHalfTolerance));
  }
}

TEST_F(Int4GemmCuda, FollowsTheKernelBeforeItEvenWhenTheyOverlap) {
  const int32_t width = usual_or_few(2048, 640);
  const Int4Weight w = random_int4(width, width, {}, random_);
  const PackedInt4Weight packed = pack(w);
  for (const int32_t m : {1, 20, 64}) {
    const auto values = static_cast<size_t>(m) * static_cast<size_t>(width);
    Int4Gemm gemm = make_gemm(m, packed);
    const HalfTensor input = random_halves(values, Dtype::bf16, random_);
    const DeviceBuffer a = to_device(input.stored);
    const DeviceBuffer b = poisoned(values * 2);
    // Each product reads what the one before it wrote. Values grow at each, since the weights' mean is not 0: no more
    // of them than bf16 can hold.
    const auto chain = [&](bool wait) {
      copy_to_device(a.data(), input.stored.data(), a.bytes(), stream_);
      for (int i = 0; i < usual_or_few(16, 4); i++) {
        Int4GemmArgs args;
        args.dtype = Dtype::bf16;
        args.x = i % 2 == 0 ? a.data() : b.data();
        args.y = i % 2 == 0 ? b.data() : a.data();
        args.x_stride = args.y_stride = width;
        args.m = m;
        gemm.run(packed, args, stream_);
        if (wait) stream_.synchronize();
      }
      return to_host<uint16_t>(a);
    };
    const std::vector<uint16_t> one_by_one = chain(true);
    for (int repeat = 0; repeat < usual_or_few(20, 2); repeat++) ASSERT_EQ(one_by_one, chain(false)) << "m " << m;
    for (const float v : to_values(one_by_one, Dtype::bf16)) ASSERT_TRUE(std::isfinite(v));
  }
}

TEST_F(Int4GemmCuda, MultipliesRandomWeightsOfUnitGain) {
  for (const bool paired : {false, true}) {
    const Result<PackedInt4Weight> w = PackedInt4Weight::random(1024, 5120, paired, 3, stream_);
    ASSERT_TRUE(w) << w.error().message;
    const HalfTensor x = random_halves(5120, Dtype::bf16, random_);
    double squares = 0;
    for (const float v : to_values(multiply(*w, x, {Dtype::bf16, 1}), Dtype::bf16)) squares += v * v;
    EXPECT_NEAR(std::sqrt(squares / 1024), 1.0, 0.2);
  }
}

TEST_F(Int4GemmCuda, RefusesPartsThatCannotBeOneProduct) {
  const Int4Weight a = random_int4(32, 256, {128}, random_);
  const Int4Weight b = random_int4(32, 256, {64}, random_);
  const Int4Weight* parts[] = {&a, &b};
  const Result<PackedInt4Weight> packed = PackedInt4Weight::pack(parts, stream_);
  ASSERT_FALSE(packed);
  EXPECT_THAT(packed.error().message, ::testing::HasSubstr("differ in their groups"));
  const Int4Weight c = random_int4(40, 256, {128}, random_);
  const Result<PackedInt4Weight> pair = PackedInt4Weight::pack_pair(a, c, stream_);
  ASSERT_FALSE(pair);
  EXPECT_THAT(pair.error().message, ::testing::HasSubstr("no pair"));
}

INSTANTIATE_TEST_SUITE_P(, Int4GemmCudaOfDtype, ::testing::ValuesIn(kDtypes),
                         [](const auto& test) { return dtype_name(test.param); });

}  // namespace
}  // namespace lorikeet::kernels
