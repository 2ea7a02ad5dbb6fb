// What is packed for the slots of ranks, against where every element belongs by the layouts' descriptions.
#include "model/adapter/adapter_slice.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <bit>
#include <cstring>
#include <random>

#include "kernels/base/dtype.h"
#include "kernels/lora/lora_layout.h"

namespace lorikeet::model {
namespace {

using kernels::Dtype;
using testing::HasSubstr;

constexpr const char* kDigest = "0123456789abcdef0123456789abcdef";
constexpr std::array kLayouts = {SliceLayout::cpu_f32, SliceLayout::cuda_f16, SliceLayout::cuda_bf16};

ModelConfig config_of() {
  ModelConfig config;
  config.hidden_size = 40;
  config.num_layers = 2;
  config.num_heads = 4;
  config.num_kv_heads = 2;
  config.head_dim = 24;
  config.intermediate_size = 136;
  config.vocab_size = 51;
  return config;
}

class AdapterSliceTest : public testing::TestWithParam<Dtype> {
 protected:
  // Floats of the parameter's type; `exact`: as they are stored.
  StoredFloats floats(size_t count) {
    std::vector<float> values(count);
    for (float& value : values) value = std::uniform_real_distribution<float>(-2, 2)(random_);
    if (GetParam() == Dtype::f32) return values;
    std::vector<uint16_t> bits;
    for (const float value : values) {
      bits.push_back(GetParam() == Dtype::f16 ? kernels::float_to_half(value) : kernels::float_to_bf16(value));
    }
    return {GetParam(), {reinterpret_cast<const uint8_t*>(bits.data()), 2 * bits.size()}};
  }

  LoraPair pair(int32_t rank, int32_t inputs, int32_t outputs) {
    LoraPair made;
    made.rank = rank;
    made.scale = 0.125F * static_cast<float>(rank);
    made.inputs = inputs;
    made.outputs = outputs;
    made.a = floats(static_cast<size_t>(rank) * static_cast<size_t>(inputs));
    made.b = floats(static_cast<size_t>(rank) * static_cast<size_t>(outputs));
    return made;
  }

  // Ranks of all kinds: below a tile, whole tiles, more than are packed at once.
  Adapter adapter() {
    const ModelConfig config = config_of();
    Adapter made;
    made.digest = kDigest;
    made.layers.resize(2);
    const std::array<int32_t, kNumProjections> ranks = {1, 8, 13, 16, 70, 0, 64};
    for (const Projection p : kProjections) {
      const auto index = static_cast<size_t>(p);
      if (ranks[index] > 0) made.layers[1][index] = pair(ranks[index], input_size(config, p), output_size(config, p));
    }
    made.lm_head = pair(9, config.hidden_size, config.vocab_size);
    made.embedding = pair(3, config.vocab_size, config.hidden_size);
    made.count_bytes();
    return made;
  }

  struct Written {
    std::vector<AdapterSlice> slices;
    std::vector<std::vector<uint8_t>> bytes;
  };
  Written write(const Adapter& whole, const ShardPlan& plan, SliceLayout layout, int threads = 1) {
    Written made;
    std::vector<uint8_t*> to;
    for (int rank = 0; rank < plan.size(); ++rank) {
      made.slices.push_back(plan_slice(whole, plan, rank, layout));
      made.bytes.emplace_back(made.slices.back().bytes);
    }
    for (auto& bytes : made.bytes) to.push_back(bytes.data());
    const auto ok = write_slices(whole, plan, made.slices, to, threads);
    EXPECT_TRUE(ok) << ok.error().message;
    return made;
  }

  std::mt19937 random_{5};
};

// An element of the matrix at `at`, as stored there.
float element(const std::vector<uint8_t>& bytes, uint64_t at, Dtype dtype, uint64_t index) {
  return kernels::load_float(bytes.data() + at, dtype, index);
}

float rounded(float value, Dtype dtype) {
  if (dtype == Dtype::f16) return kernels::half_to_float(kernels::float_to_half(value));
  return dtype == Dtype::bf16 ? kernels::bf16_to_float(kernels::float_to_bf16(value)) : value;
}

// Where A's element of rank r and input k, and B's of output n and rank r, belong (kernels/lora/lora_layout.h).
uint64_t place_of_a(int32_t r, int32_t k, int32_t inputs) {
  const uint64_t blocks = static_cast<uint64_t>((inputs + 31) / 32);
  const uint64_t block = static_cast<uint64_t>(r / 8) * blocks + static_cast<uint64_t>(k / 32);
  const auto lane = static_cast<uint64_t>(r % 8 * 4 + k % 32 / 8);
  return block * 256 + lane * 8 + static_cast<uint64_t>(k % 8);
}
uint64_t place_of_b(int32_t n, int32_t r, int32_t rank) {
  const uint64_t blocks = static_cast<uint64_t>((rank + 7) / 8);
  const uint64_t block = static_cast<uint64_t>(n / 32) * blocks + static_cast<uint64_t>(r / 8);
  const int32_t o = n % 32, g = 2 * (o / 8) + o % 2, i = o % 8 / 2, t = r % 8 / 2, e = r % 2;
  return block * 256 + static_cast<uint64_t>((g * 4 + t) * 8 + 2 * i + e);
}

void expect_pair(const LoraPair& part, const SlicePair& pair, SliceLayout layout, bool is_embedding,
                 const std::vector<uint8_t>& bytes) {
  ASSERT_EQ(pair.rank, part.rank);
  ASSERT_EQ(pair.scale, part.scale);
  ASSERT_EQ(pair.inputs, part.inputs);
  ASSERT_EQ(pair.outputs, part.outputs);
  EXPECT_EQ(pair.a % 512, 0u);
  EXPECT_EQ(pair.b % 512, 0u);
  const bool cpu = layout == SliceLayout::cpu_f32;
  const Dtype dtype = cpu ? Dtype::f32 : layout == SliceLayout::cuda_f16 ? Dtype::f16 : Dtype::bf16;
  for (int32_t r = 0; r < part.rank; ++r) {
    for (int32_t k = 0; k < part.inputs; ++k) {
      const auto plain = static_cast<uint64_t>(r) * static_cast<uint64_t>(part.inputs) + static_cast<uint64_t>(k);
      const uint64_t at = cpu ? plain
                          : is_embedding
                              ? static_cast<uint64_t>(k) * static_cast<uint64_t>(part.rank) + static_cast<uint64_t>(r)
                              : place_of_a(r, k, part.inputs);
      ASSERT_EQ(element(bytes, pair.a, dtype, at), rounded(part.a[plain], dtype)) << "A " << r << " " << k;
    }
    for (int32_t n = 0; n < part.outputs; ++n) {
      const auto plain = static_cast<uint64_t>(n) * static_cast<uint64_t>(part.rank) + static_cast<uint64_t>(r);
      const uint64_t at =
          cpu            ? static_cast<uint64_t>(r) * static_cast<uint64_t>(part.outputs) + static_cast<uint64_t>(n)
          : is_embedding ? plain
                         : place_of_b(n, r, part.rank);
      ASSERT_EQ(element(bytes, pair.b, dtype, at), rounded(part.b[plain], dtype)) << "B " << n << " " << r;
    }
  }
}

TEST_P(AdapterSliceTest, HasEveryElementOfTheRanksPartWhereTheLayoutSays) {
  const Adapter whole = adapter();
  for (const int ranks : {1, 2}) {
    const ShardPlan plan = *ShardPlan::make(config_of(), ranks);
    for (const SliceLayout layout : kLayouts) {
      const Written written = write(whole, plan, layout);
      for (int rank = 0; rank < ranks; ++rank) {
        const auto& bytes = written.bytes[static_cast<size_t>(rank)];
        EXPECT_EQ(bytes.size() % kSliceAlignment, 0u);
        ASSERT_TRUE(is_slice(bytes));
        const auto slice = read_slice(bytes, plan, rank, layout);
        ASSERT_TRUE(slice) << slice.error().message;
        EXPECT_EQ(slice->digest, kDigest);
        const Adapter part = cut_adapter(whole, plan, rank);
        for (size_t layer = 0; layer < 2; ++layer) {
          for (size_t p = 0; p < kNumProjections; ++p) {
            const auto& pair = part.layers[layer][p];
            EXPECT_EQ(slice->of(layer, p).rank > 0, pair.has_value());
            if (pair) expect_pair(*pair, slice->of(layer, p), layout, false, bytes);
          }
        }
        expect_pair(*part.lm_head, slice->lm_head(), layout, false, bytes);
        expect_pair(*part.embedding, slice->embedding(), layout, true, bytes);
      }
    }
  }
}

TEST_P(AdapterSliceTest, IsTheSameWhateverTheThreadsThatWriteIt) {
  const Adapter whole = adapter();
  const ShardPlan plan = *ShardPlan::make(config_of(), 2);
  for (const SliceLayout layout : kLayouts) {
    EXPECT_EQ(write(whole, plan, layout, 1).bytes, write(whole, plan, layout, 6).bytes);
  }
}

TEST_P(AdapterSliceTest, IsPaddedWithZerosInTheDevicesBlocks) {
  const Adapter whole = adapter();
  const ShardPlan plan = *ShardPlan::make(config_of(), 1);
  const Written written = write(whole, plan, SliceLayout::cuda_f16);
  const SlicePair& pair = written.slices[0].of(1, static_cast<size_t>(Projection::v));  // rank 13, of 40 inputs
  for (int32_t r = 0; r < 16; ++r) {
    for (int32_t k = 0; k < 64; ++k) {
      if (r < 13 && k < 40) continue;
      ASSERT_EQ(element(written.bytes[0], pair.a, Dtype::f16, place_of_a(r, k, 40)), 0) << r << " " << k;
    }
    for (int32_t n = 0; n < 64; ++n) {
      if (r < 13 && n < pair.outputs) continue;
      ASSERT_EQ(element(written.bytes[0], pair.b, Dtype::f16, place_of_b(n, r, 13)), 0) << n << " " << r;
    }
  }
}

INSTANTIATE_TEST_SUITE_P(, AdapterSliceTest, testing::Values(Dtype::f32, Dtype::f16, Dtype::bf16),
                         [](const auto& info) { return std::string(kernels::name_of(info.param)); });

// One projection of one layer.
Adapter small(std::vector<float> a) {
  const ModelConfig config = config_of();
  Adapter made;
  made.digest = kDigest;
  made.layers.resize(2);
  LoraPair pair;
  pair.rank = 2;
  pair.scale = 1;
  pair.inputs = config.hidden_size;
  pair.outputs = output_size(config, Projection::k);
  pair.a = std::move(a);
  pair.b = std::vector<float>(2 * static_cast<size_t>(pair.outputs), 0.5F);
  made.layers[0][static_cast<size_t>(Projection::k)] = pair;
  return made;
}

std::vector<uint8_t> written(const Adapter& whole, const ShardPlan& plan, int rank, SliceLayout layout,
                             std::string* error = nullptr) {
  std::vector<AdapterSlice> slices;
  std::vector<std::vector<uint8_t>> bytes;
  std::vector<uint8_t*> to;
  for (int r = 0; r < plan.size(); ++r) {
    slices.push_back(plan_slice(whole, plan, r, layout));
    bytes.emplace_back(slices.back().bytes);
  }
  for (auto& one : bytes) to.push_back(one.data());
  const auto ok = write_slices(whole, plan, slices, to, 2);
  if (error != nullptr) *error = ok ? "" : ok.error().message;
  return bytes[static_cast<size_t>(rank)];
}

TEST(AdapterSlice, IsRefusedWhereAValueIsTooLargeForTheLayoutsType) {
  std::vector<float> a(80, 1.0F);
  a[50] = 1e5F;
  const ShardPlan plan = *ShardPlan::make(config_of(), 1);
  std::string error;
  written(small(a), plan, 0, SliceLayout::cuda_f16, &error);
  EXPECT_EQ(error, "the adapter's layer 0, self_attn.k_proj has weights that are not finite as F16");
  for (const SliceLayout layout : {SliceLayout::cuda_bf16, SliceLayout::cpu_f32}) {
    written(small(a), plan, 0, layout, &error);
    EXPECT_EQ(error, "");
  }
}

TEST(AdapterSlice, IsReadForItsRankLayoutAndModelOnly) {
  const ShardPlan plan = *ShardPlan::make(config_of(), 2);
  const auto good = written(small(std::vector<float>(80, 1)), plan, 0, SliceLayout::cuda_f16);
  const auto error = [&](const std::vector<uint8_t>& bytes, SliceLayout layout = SliceLayout::cuda_f16) {
    const auto read = read_slice(bytes, plan, 0, layout);
    return read ? "" : read.error().message;
  };
  EXPECT_EQ(error(good), "");
  EXPECT_THAT(error(good, SliceLayout::cpu_f32), HasSubstr("fp16 on a CUDA device, the slots of rank 0 take float32"));
  EXPECT_THAT(read_slice(good, plan, 1, SliceLayout::cuda_f16).error().message, HasSubstr("of rank 0 of 2"));
  EXPECT_THAT(error({}), HasSubstr("not one"));
  EXPECT_THAT(error({good.begin(), good.begin() + 40}), HasSubstr("too short for its header"));
  EXPECT_THAT(error({good.begin(), good.end() - 1}), HasSubstr("its ranks call for"));
  auto longer = good;
  longer.push_back(0);
  EXPECT_THAT(error(longer), HasSubstr("its ranks call for"));
  auto config = config_of();
  config.num_layers = 3;
  EXPECT_THAT(read_slice(good, *ShardPlan::make(config, 2), 0, SliceLayout::cuda_f16).error().message,
              HasSubstr("of 16 places, the model has 23"));
}

TEST(AdapterSlice, IsRefusedWithRanksAndScalesThatCannotBe) {
  const ShardPlan plan = *ShardPlan::make(config_of(), 1);
  const auto good = written(small(std::vector<float>(80, 1)), plan, 0, SliceLayout::cpu_f32);
  const size_t rank_at = 64 + 8 * static_cast<size_t>(Projection::k), scale_at = rank_at + 4;
  const auto error = [&](size_t at, uint32_t word) {
    auto bad = good;
    std::memcpy(bad.data() + at, &word, sizeof word);
    const auto read = read_slice(bad, plan, 0, SliceLayout::cpu_f32);
    return read ? "" : read.error().message;
  };
  EXPECT_THAT(error(rank_at, 0xffffffffu), HasSubstr("rank -1 at place 1"));
  EXPECT_THAT(error(rank_at, 0x7fffffffu), HasSubstr("rank 2147483647 at place 1"));
  EXPECT_THAT(error(rank_at, 200), HasSubstr("its ranks call for"));
  EXPECT_THAT(error(rank_at + 8, 100), HasSubstr("its ranks call for"));
  EXPECT_THAT(error(scale_at, std::bit_cast<uint32_t>(INFINITY)), HasSubstr("the scale at place 1 is not a number"));
}

}  // namespace
}  // namespace lorikeet::model
