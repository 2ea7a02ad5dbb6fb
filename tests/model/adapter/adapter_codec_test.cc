#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cmath>
#include <random>

#include "kernels/base/dtype.h"
#include "model/adapter/adapter.h"
#include "tests/model/checkpoint/safetensors_writer.h"

namespace lorikeet::model {
namespace {

using testing::HasSubstr;

ShardPlan plan() {
  ModelConfig config;
  config.hidden_size = 32;
  config.num_layers = 2;
  config.num_heads = 4;
  config.num_kv_heads = 2;
  config.head_dim = 8;
  config.intermediate_size = 48;
  config.vocab_size = 20;
  return *ShardPlan::make(config, 2);
}

LoraPair pair_of(std::mt19937& random, int32_t rank, int32_t outputs, int32_t inputs, bool dora) {
  const auto values = [&](int32_t count) {
    std::vector<float> list;
    for (int32_t i = 0; i < count; ++i) list.push_back(std::uniform_real_distribution<float>(-2, 2)(random));
    return list;
  };
  LoraPair pair;
  pair.rank = rank;
  pair.scale = 0.1F;
  pair.inputs = inputs;
  pair.outputs = outputs;
  pair.a = values(rank * inputs);
  pair.b = values(outputs * rank);
  if (dora) {
    pair.magnitude = values(outputs);
    pair.dora_factor = values(outputs);
  }
  return pair;
}

Adapter part_of(int rank, bool dora) {
  std::mt19937 random(3);
  const ShardPlan p = plan();
  Adapter part;
  part.digest = "0123456789abcdef0123456789abcdef";
  part.layers.resize(2);
  for (const Projection projection : kProjections) {
    part.layers[1][static_cast<size_t>(projection)] =
        pair_of(random, 3, p.outputs(projection, rank).size(), p.inputs(projection, rank).size(), dora);
  }
  part.embedding = pair_of(random, 2, 32, 20, false);
  part.lm_head = pair_of(random, 5, p.shard(rank).vocab.size(), 32, false);
  part.count_bytes();
  return part;
}

void expect_equal(const LoraPair& a, const LoraPair& b) {
  EXPECT_EQ(a.rank, b.rank);
  EXPECT_EQ(a.scale, b.scale);
  EXPECT_EQ(a.inputs, b.inputs);
  EXPECT_EQ(a.outputs, b.outputs);
  EXPECT_EQ(a.a, b.a);
  EXPECT_EQ(a.b, b.b);
  EXPECT_EQ(a.magnitude, b.magnitude);
  EXPECT_EQ(a.dora_factor, b.dora_factor);
}

TEST(AdapterCodec, GivesBackWhatItWasGiven) {
  for (const bool dora : {false, true}) {
    const Adapter part = part_of(1, dora);
    const auto decoded = decode_adapter(encode_adapter(part), plan(), 1);
    ASSERT_TRUE(decoded) << decoded.error().message;
    EXPECT_EQ(decoded->digest, part.digest);
    EXPECT_EQ(decoded->bytes, part.bytes);
    EXPECT_EQ(decoded->max_rank, 5);
    EXPECT_EQ(decoded->uses_dora(), dora);
    ASSERT_EQ(decoded->layers.size(), 2u);
    for (size_t p = 0; p < kNumProjections; ++p) {
      EXPECT_FALSE(decoded->layers[0][p]);
      expect_equal(*decoded->layers[1][p], *part.layers[1][p]);
    }
    expect_equal(*decoded->embedding, *part.embedding);
    expect_equal(*decoded->lm_head, *part.lm_head);
  }
}

// Every half, bfloat and some floats between them: the encoding picks a type, never another value.
TEST(AdapterCodec, KeepsEveryValueExactly) {
  const auto round_trip = [](std::vector<float> values) {
    const ShardPlan p = plan();
    values.resize((values.size() + 31) / 32 * 32, 0);
    Adapter part;
    part.digest = std::string(32, 'a');
    part.layers.resize(2);
    LoraPair pair;
    pair.rank = static_cast<int32_t>(values.size() / 32);
    pair.scale = -1.5F;
    pair.inputs = 32;
    pair.outputs = p.outputs(Projection::up, 0).size();
    pair.a = values;
    pair.b = std::vector<float>(static_cast<size_t>(pair.outputs * pair.rank), 0);
    part.layers[0][static_cast<size_t>(Projection::up)] = pair;
    const auto image = encode_adapter(part);
    const auto decoded = decode_adapter(image, p, 0);
    EXPECT_TRUE(decoded) << decoded.error().message;
    const auto& a = decoded->layers[0][static_cast<size_t>(Projection::up)]->a;
    for (size_t i = 0; i < values.size(); ++i) {
      EXPECT_EQ(std::bit_cast<uint32_t>(a[i]), std::bit_cast<uint32_t>(values[i])) << values[i];
    }
    return image.size();
  };
  std::vector<float> halves, bfloats, floats;
  for (uint32_t bits = 0; bits < 65536; ++bits) {
    const float half = kernels::half_to_float(static_cast<uint16_t>(bits));
    const float bfloat = kernels::bf16_to_float(static_cast<uint16_t>(bits));
    if (std::isfinite(half)) halves.push_back(half);
    if (std::isfinite(bfloat)) bfloats.push_back(bfloat);
    if (std::isfinite(half)) floats.push_back(std::nextafterf(half, 1e9F));
  }
  EXPECT_LT(round_trip(halves), halves.size() * 2 * 3);
  EXPECT_LT(round_trip(bfloats), bfloats.size() * 2 * 3);
  round_trip(floats);
}

TEST(AdapterCodec, RefusesAnotherRanksPartAndAnotherPlan) {
  ModelConfig config = plan().config();
  config.intermediate_size = 96;
  EXPECT_THAT(decode_adapter(encode_adapter(part_of(0, false)), *ShardPlan::make(config, 2), 0).error().message,
              HasSubstr("has shape"));
  config = plan().config();
  config.num_layers = 3;
  EXPECT_THAT(decode_adapter(encode_adapter(part_of(0, false)), *ShardPlan::make(config, 2), 0).error().message,
              HasSubstr("for a base of 2 layers, this one has 3"));
}

TEST(AdapterCodec, RefusesForgedContent) {
  const auto error = [](const tests::SafetensorsWriter& writer, const std::string& metadata) {
    const std::string image = writer.image(metadata);
    const auto decoded = decode_adapter({reinterpret_cast<const uint8_t*>(image.data()), image.size()}, plan(), 0);
    return decoded ? "" : decoded.error().message;
  };
  const std::string good =
      R"({"format":"lorikeet-adapter-1","digest":"0123456789abcdef0123456789abcdef","layers":"2","0.q.scale":"3f800000"})";
  tests::SafetensorsWriter writer;
  EXPECT_EQ(error(writer, good), "");
  writer.add("0.q.a", "F32", {1, 32}, std::vector<float>(32, 1));
  EXPECT_THAT(error(writer, good), HasSubstr("0.q has A or B, not both"));
  writer.add("0.q.b", "F32", {16, 1}, std::vector<float>(16, 1));
  EXPECT_EQ(error(writer, good), "");
  EXPECT_THAT(error(writer, R"({"format":"x"})"), HasSubstr("not of format"));
  EXPECT_THAT(error(writer, R"({"format":"lorikeet-adapter-1","digest":"../../x","layers":"2"})"),
              HasSubstr("its digest is not 32 hex digits"));
  EXPECT_THAT(
      error(writer, R"({"format":"lorikeet-adapter-1","digest":"0123456789abcdef0123456789abcdef","layers":"2"})"),
      HasSubstr("no scale of 0.q"));
  EXPECT_THAT(
      error(
          writer,
          R"({"format":"lorikeet-adapter-1","digest":"0123456789abcdef0123456789abcdef","layers":"2","0.q.scale":"7f800000"})"),
      HasSubstr("the scale of 0.q is not a number"));
  EXPECT_THAT(
      error(
          writer,
          R"({"format":"lorikeet-adapter-1","digest":"0123456789abcdef0123456789abcdef","layers":"2","0.q.scale":"3f80000z"})"),
      HasSubstr("the scale of 0.q is not a number"));
  tests::SafetensorsWriter more = writer;
  more.add("0.q.c", "F32", {1}, std::vector<float>(1, 1));
  EXPECT_THAT(error(more, good), HasSubstr("3 tensors, 2 of them have a place"));
  more = writer;
  more.add("0.q.magnitude", "F32", {15}, std::vector<float>(15, 1));
  EXPECT_THAT(error(more, good), HasSubstr("0.q.magnitude has shape [15], expected [16]"));
  tests::SafetensorsWriter bad;
  bad.add("0.q.a", "F32", {1, 32}, std::vector<float>(32, NAN));
  bad.add("0.q.b", "F32", {16, 1}, std::vector<float>(16, 1));
  EXPECT_THAT(error(bad, good), HasSubstr("element 0 of 0.q.a is not finite"));
  tests::SafetensorsWriter wide;
  wide.add("0.q.a", "F32", {0, 32}, std::vector<float>{});
  wide.add("0.q.b", "F32", {16, 0}, std::vector<float>{});
  EXPECT_THAT(error(wide, good), HasSubstr("A of 0.q has shape [0, 32]"));
}

TEST(AdapterCodec, SurvivesEveryCutAndFlippedByte) {
  Adapter part = part_of(0, true);
  part.embedding.reset();
  const auto image = encode_adapter(part);
  for (size_t size = 0; size < image.size(); size += size < 4096 ? 1 : 37) {
    EXPECT_FALSE(decode_adapter({image.data(), size}, plan(), 0)) << size;
  }
  std::mt19937 random(11);
  int refused = 0;
  for (int i = 0; i < 3000; ++i) {
    auto changed = image;
    changed[random() % 2500] ^= static_cast<uint8_t>(1 + random() % 255);
    refused += decode_adapter(changed, plan(), 0) ? 0 : 1;
  }
  EXPECT_GT(refused, 1500);  // most bytes there belong to the header
}

}  // namespace
}  // namespace lorikeet::model
