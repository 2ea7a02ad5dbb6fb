#include "model/checkpoint/int4_repack.h"

#include <gtest/gtest.h>

#include <cmath>
#include <filesystem>

#include "kernels/base/dtype.h"

namespace lorikeet::model {
namespace {

// A tensor of its own, for modules of a few words.
struct Owned {
  TensorEntry entry;
  std::vector<uint8_t> bytes;
};

template <class T>
TensorView tensor(kernels::Dtype dtype, std::vector<int64_t> shape, const std::vector<T>& values) {
  auto owned = std::make_shared<Owned>();
  owned->entry.dtype = dtype;
  owned->entry.dtype_name = kernels::name_of(dtype);
  owned->entry.shape = std::move(shape);
  owned->bytes.resize(values.size() * sizeof(T));
  std::memcpy(owned->bytes.data(), values.data(), owned->bytes.size());
  return {&owned->entry, owned->bytes, owned, "t", nullptr};
}

// Row n of W in the order of x.
std::vector<float> row(const kernels::Int4Weight& w, int32_t n) {
  std::vector<float> values(static_cast<size_t>(w.x_size));
  for (int32_t run = 0; run < w.runs(); ++run) {
    for (int32_t k = w.run_begin[static_cast<size_t>(run)]; k < w.run_begin[static_cast<size_t>(run) + 1]; ++k) {
      const int32_t x = w.permutation.empty() ? k : w.permutation[static_cast<size_t>(k)];
      const auto at = static_cast<size_t>(run * w.n + n);
      const int q = w.q[static_cast<size_t>(n * w.k / 2 + k / 2)] >> (k % 2 * 4) & 15;
      if (x >= 0) values[static_cast<size_t>(x)] = w.scale[at] * static_cast<float>(q - w.zero[at]);
    }
  }
  return values;
}

// The worked example of AutoGPTQ's layout: one word of eight inputs, scale 0.5, symmetric zeros.
TEST(Int4Repack, UnpacksTheWorkedExampleOfGptq) {
  QuantisedModule m;
  m.method = QuantMethod::gptq;
  m.n = m.k = 8;
  m.groups = 1;
  m.group_size = 8;
  std::vector<uint32_t> words(8, 0x88888888);
  words[0] = 0x8C30F798;
  m.weight = tensor(kernels::Dtype::i32, {1, 8}, words);
  m.scales = tensor(kernels::Dtype::f32, {1, 8}, std::vector<float>(8, 0.5F));
  m.zeros = tensor(kernels::Dtype::i32, {1, 1}, std::vector<uint32_t>{0x77777777});
  ASSERT_TRUE(check_module_shapes(m));
  const auto w = repack_int4(m, {0, 8}, {0, 8});
  EXPECT_EQ(row(w, 0), (std::vector<float>{0, .5F, -.5F, 3.5F, -4, -2.5F, 2, 0}));
  EXPECT_EQ(row(w, 1), std::vector<float>(8, 0));
  EXPECT_EQ(w.k % kernels::Int4Weight::kRunMultiple, 0);
}

TEST(Int4Repack, ReadsAsymmetricZerosOfBothGptqVersions) {
  QuantisedModule m;
  m.n = m.k = 8;
  m.groups = 1;
  m.group_size = 8;
  m.weight = tensor(kernels::Dtype::i32, {1, 8}, std::vector<uint32_t>(8, 0));
  m.scales = tensor(kernels::Dtype::f32, {1, 8}, std::vector<float>(8, 1));
  m.zeros = tensor(kernels::Dtype::i32, {1, 1}, std::vector<uint32_t>{0x628E0A47});
  m.method = QuantMethod::gptq;
  EXPECT_EQ(repack_int4(m, {0, 8}, {0, 8}).zero, (std::vector<uint8_t>{8, 5, 11, 1, 15, 9, 3, 7}));
  m.method = QuantMethod::gptq_v2;
  EXPECT_EQ(repack_int4(m, {0, 8}, {0, 8}).zero, (std::vector<uint8_t>{7, 4, 10, 0, 14, 8, 2, 6}));
}

TEST(Int4Repack, UnpacksTheWorkedExampleOfAwq) {
  QuantisedModule m;
  m.method = QuantMethod::awq;
  m.n = 8;
  m.k = m.group_size = 1;
  m.groups = 1;
  m.weight = tensor(kernels::Dtype::i32, {1, 1}, std::vector<uint32_t>{0x86427531});
  m.scales = tensor(kernels::Dtype::f32, {1, 8}, std::vector<float>(8, .25F));
  m.zeros = tensor(kernels::Dtype::i32, {1, 1}, std::vector<uint32_t>{0x69876987});
  ASSERT_TRUE(check_module_shapes(m));
  const auto w = repack_int4(m, {0, 8}, {0, 1});
  const std::vector<float> expected = {-1.5F, -1.25F, -1.25F, -1, -1, -.75F, .25F, .5F};
  for (int32_t n = 0; n < 8; ++n) EXPECT_EQ(row(w, n), std::vector<float>{expected[static_cast<size_t>(n)]}) << n;
}

TEST(Int4Repack, UnpacksTheWorkedExampleOfCompressedTensors) {
  QuantisedModule m;
  m.method = QuantMethod::compressed_tensors;
  m.n = 1;
  m.k = m.group_size = 8;
  m.groups = 1;
  m.weight = tensor(kernels::Dtype::i32, {1, 1}, std::vector<uint32_t>{0x84BF9870});
  m.scales = tensor(kernels::Dtype::f32, {1, 1}, std::vector<float>{2});
  ASSERT_TRUE(check_module_shapes(m));
  EXPECT_EQ(row(repack_int4(m, {0, 1}, {0, 8}), 0), (std::vector<float>{-16, -2, 0, 2, 14, 6, -8, 0}));
}

TEST(Int4Repack, KeepsPlainGroupsInPlaceAndSortsScatteredOnes) {
  EXPECT_TRUE(layout_runs(std::vector<int32_t>(64, 0)).plain);
  std::vector<int32_t> descending(64, 1);
  for (size_t i = 32; i < 64; ++i) descending[i] = 0;
  EXPECT_TRUE(layout_runs(descending).plain);
  EXPECT_EQ(layout_runs(descending).run_group, (std::vector<int32_t>{1, 0}));

  const RunLayout sorted = layout_runs({1, 0, 1, 0});
  EXPECT_FALSE(sorted.plain);
  EXPECT_EQ(sorted.run_group, (std::vector<int32_t>{0, 1}));
  EXPECT_EQ(sorted.run_begin, (std::vector<int32_t>{0, 32, 64}));
  EXPECT_EQ(sorted.source[0], 1);
  EXPECT_EQ(sorted.source[1], 3);
  EXPECT_EQ(sorted.source[2], -1);
  EXPECT_EQ(sorted.source[32], 0);
  EXPECT_EQ(sorted.source[33], 2);
}

// W of both forms that values of 8 bits take, in the order of x.
std::vector<float> row_of_pairs(const kernels::Int4Weight& w, int32_t n) {
  std::vector<float> values(static_cast<size_t>(w.x_size), 0);
  for (int32_t run = 0; run < w.runs(); ++run) {
    for (int32_t k = w.run_begin[static_cast<size_t>(run)]; k < w.run_begin[static_cast<size_t>(run) + 1]; ++k) {
      const int32_t x = w.permutation[static_cast<size_t>(k)];
      const auto at = static_cast<size_t>(run * w.n + n);
      const int q = w.q[static_cast<size_t>(n * w.k / 2 + k / 2)] >> (k % 2 * 4) & 15;
      if (x >= 0) values[static_cast<size_t>(x)] += w.scale[at] * static_cast<float>(q - w.zero[at]);
    }
  }
  return values;
}

// Four inputs of one output in a word: 0, 128, 200, 255 with the stored zero 99 of GPTQ v1, which stands for 100.
TEST(Int4Repack, MakesTwoProductsOrFloatsOfEightBits) {
  QuantisedModule m;
  m.method = QuantMethod::gptq;
  m.bits = 8;
  m.n = m.k = 4;
  m.groups = 1;
  m.group_size = 4;
  std::vector<uint32_t> words(4, 0x64646464);
  words[0] = 0xFFC88000;
  m.weight = tensor(kernels::Dtype::i32, {1, 4}, words);
  m.scales = tensor(kernels::Dtype::f32, {1, 4}, std::vector<float>(4, 0.5F));
  m.zeros = tensor(kernels::Dtype::i32, {1, 1}, std::vector<uint32_t>{0x63636363});
  ASSERT_TRUE(check_module_shapes(m));
  ASSERT_TRUE(check_module_values(m));
  const std::vector<float> expected = {-50, 14, 50, 77.5F};
  const auto pairs = repack_int4(m, {0, 4}, {0, 4});
  EXPECT_EQ(row_of_pairs(pairs, 0), expected);
  EXPECT_EQ(row_of_pairs(pairs, 1), std::vector<float>(4, 0));
  EXPECT_EQ(pairs.q.size(), 4u * 32) << "two runs, filled up to 32";
  const auto floats = dequantise(m, {0, 2}, {1, 4});
  for (size_t k = 0; k < 3; ++k) {
    EXPECT_EQ(kernels::load_float(floats.row(0), floats.dtype, k), expected[k + 1]);
    EXPECT_EQ(kernels::load_float(floats.row(1), floats.dtype, k), 0);
  }
}

TEST(Int4Repack, ReadsZeroPointsThatOlderCompressedTensorsDidNotPack) {
  QuantisedModule m;
  m.method = QuantMethod::compressed_tensors;
  m.n = 2;
  m.k = m.group_size = 8;
  m.groups = 1;
  m.weight = tensor(kernels::Dtype::i32, {2, 1}, std::vector<uint32_t>{0x84BF9870, 0x88888888});
  m.scales = tensor(kernels::Dtype::f32, {2, 1}, std::vector<float>{2, 1});
  TensorView zeros = tensor(kernels::Dtype::u8, {2, 1}, std::vector<int8_t>{-8, 7});
  auto entry = std::make_shared<TensorEntry>(*zeros.entry);
  entry->dtype_name = "I8";
  zeros.entry = entry.get();
  m.zeros = zeros;
  ASSERT_TRUE(check_module_shapes(m));
  ASSERT_TRUE(check_module_values(m));
  const auto w = repack_int4(m, {0, 2}, {0, 8});
  EXPECT_EQ(row(w, 0), (std::vector<float>{0, 14, 16, 18, 30, 22, 8, 16}));
  EXPECT_EQ(row(w, 1), std::vector<float>(8, -7));
}

// A layer that others quantised and published; the figures were computed from it once, in float64, by its publisher's
// rule.
TEST(Int4Repack, GivesThePublishedSumsOfARealLayer) {
  const std::string path = LORIKEET_SOURCE_DIR "/../shared/fixtures/public/scalellm/gptq_small.safetensors";
  if (!std::filesystem::exists(path)) GTEST_SKIP() << "the published file is not here: " << path;
  const auto file = SafetensorsFile::open(path);
  ASSERT_TRUE(file) << file.error().message;
  QuantisedModule m;
  m.method = QuantMethod::gptq;
  m.n = m.k = 256;
  m.groups = 2;
  m.group_size = 128;
  std::string prefix;
  for (const auto& [name, entry] : (*file)->header().tensors) {
    if (name.size() >= 7 && name.substr(name.size() - 7) == "qweight") prefix = name.substr(0, name.size() - 7);
  }
  m.weight = *(*file)->find(prefix + "qweight");
  m.scales = *(*file)->find(prefix + "scales");
  m.zeros = (*file)->find(prefix + "qzeros");
  m.group_index = (*file)->find(prefix + "g_idx");
  const auto ok = check_module_shapes(m);
  ASSERT_TRUE(ok) << ok.error().message;
  ASSERT_TRUE(read_module(m, true));
  ASSERT_TRUE(read_bytes(*m.group_index));
  ASSERT_TRUE(check_module_values(m));
  const auto w = repack_int4(m, {0, 256}, {0, 256});
  double sum = 0, squares = 0, least = 0, most = 0;
  for (int32_t n = 0; n < 256; ++n) {
    for (const float value : row(w, n)) {
      sum += value;
      squares += static_cast<double>(value) * value;
      least = std::min<double>(least, value);
      most = std::max<double>(most, value);
    }
  }
  EXPECT_NEAR(sum, -0.9810771942138672, 1e-9);
  EXPECT_NEAR(squares, 11.370290058603132, 1e-9);
  EXPECT_EQ(least, -0.1739501953125);
  EXPECT_EQ(most, 0.1385345458984375);
  // W [inputs, outputs] there: its row 0 is the first input of the first outputs.
  const std::vector<double> first = {-0.016021728515625, 0.0240936279296875, -0.020050048828125, -0.01451873779296875};
  for (int32_t n = 0; n < 4; ++n) EXPECT_EQ(row(w, n)[0], first[static_cast<size_t>(n)]) << n;
}

}  // namespace
}  // namespace lorikeet::model
