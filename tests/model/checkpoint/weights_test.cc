#include "model/checkpoint/weights.h"

#include <fmt/format.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <chrono>
#include <fstream>
#include <functional>
#include <map>
#include <thread>

#include "tests/model/checkpoint/synthetic_checkpoint.h"

namespace lorikeet::model {
namespace {

using testing::AllOf;
using testing::HasSubstr;
using tests::Matrix;
using tests::plan_of;
using tests::SyntheticCheckpoint;
using tests::SyntheticOptions;

// W[n][k] of y = x W^T as the kernels' header defines it, in the caller's order of inputs. Weights of 8 bits are the
// sum of two of 4.
Matrix dequantise(const LinearWeights& linear, int32_t bits = 4) {
  if (const auto* dense = std::get_if<kernels::DenseWeight>(&linear.weight)) {
    Matrix m{dense->n, dense->k, {}};
    for (int32_t n = 0; n < dense->n; ++n) {
      for (int32_t k = 0; k < dense->k; ++k) {
        m.values.push_back(kernels::load_float(dense->row(n), dense->dtype, static_cast<size_t>(k)));
      }
    }
    return m;
  }
  const auto& w = std::get<kernels::Int4Weight>(linear.weight);
  Matrix m{w.n, w.x_size, std::vector<double>(static_cast<size_t>(w.n) * static_cast<size_t>(w.x_size), 0)};
  EXPECT_EQ(w.run_begin.front(), 0);
  EXPECT_EQ(w.run_begin.back(), w.k);
  std::map<int32_t, int32_t> seen;
  for (int32_t run = 0; run < w.runs(); ++run) {
    EXPECT_EQ(w.run_begin[static_cast<size_t>(run)] % kernels::Int4Weight::kRunMultiple, 0);
    for (int32_t k = w.run_begin[static_cast<size_t>(run)]; k < w.run_begin[static_cast<size_t>(run) + 1]; ++k) {
      const int32_t x = w.permutation.empty() ? k : w.permutation[static_cast<size_t>(k)];
      if (x >= 0) ++seen[x];
      for (int32_t n = 0; n < w.n; ++n) {
        const auto at = static_cast<size_t>(run) * static_cast<size_t>(w.n) + static_cast<size_t>(n);
        const uint8_t byte = w.q[static_cast<size_t>(n) * static_cast<size_t>(w.k / 2) + static_cast<size_t>(k / 2)];
        const int q = k % 2 == 0 ? byte & 15 : byte >> 4;
        const double value = static_cast<double>(w.scale[at]) * (q - w.zero[at]);
        if (x >= 0) {
          m.at(n, x) += value;
        } else {
          EXPECT_EQ(value, 0) << "padding is worth something";
        }
      }
    }
  }
  EXPECT_EQ(seen.size(), static_cast<size_t>(w.x_size)) << "inputs are missing";
  for (const auto& [x, times] : seen) EXPECT_EQ(times, bits / 4) << "of input " << x;
  if (w.permutation.empty()) {
    EXPECT_EQ(w.k, w.x_size);
  }
  return m;
}

Matrix cut(const Matrix& whole, Range rows, Range columns) {
  Matrix m{rows.size(), columns.size(), {}};
  for (int32_t r = rows.begin; r < rows.end; ++r) {
    for (int32_t c = columns.begin; c < columns.end; ++c) m.values.push_back(whole.at(r, c));
  }
  return m;
}

std::vector<double> to_double(const std::vector<float>& values) {
  return {values.begin(), values.end()};
}

Matrix floats_of(const kernels::DenseWeight& w) {
  LinearWeights linear;
  linear.weight = w;
  return dequantise(linear);
}

// Every rank's part equals that part of the reference, exactly: scales are exact in float, and so are the products.
void expect_parts(const SyntheticCheckpoint& checkpoint, const SyntheticOptions& options, int size) {
  const ShardPlan plan = plan_of(checkpoint.dir(), size);
  for (int rank = 0; rank < size; ++rank) {
    const auto weights = load_rank_weights(checkpoint.dir(), plan, rank);
    ASSERT_TRUE(weights) << weights.error().message;
    ASSERT_EQ(weights->layers.size(), static_cast<size_t>(options.layers));
    for (int32_t layer = 0; layer < options.layers; ++layer) {
      const LayerWeights& own = weights->layers[static_cast<size_t>(layer)];
      for (const Projection p : kProjections) {
        SCOPED_TRACE(testing::Message() << "TP " << size << " rank " << rank << " layer " << layer << " "
                                        << module_name_of(p));
        const Range outputs = plan.outputs(p, rank), inputs = plan.inputs(p, rank);
        const Matrix part = dequantise(own.at(p), checkpoint.bits(layer, p)),
                     expected = cut(checkpoint.weight(layer, p), outputs, inputs);
        ASSERT_EQ(part.rows, expected.rows);
        ASSERT_EQ(part.columns, expected.columns);
        for (size_t i = 0; i < expected.values.size(); ++i) {
          ASSERT_FLOAT_EQ(static_cast<float>(part.values[i]), static_cast<float>(expected.values[i])) << "at " << i;
        }
        std::vector<double> bias = checkpoint.bias(layer, p);
        if (!bias.empty()) bias = {bias.begin() + outputs.begin, bias.begin() + outputs.end};
        EXPECT_EQ(to_double(own.at(p).bias), bias);
      }
      if (options.architecture == Architecture::qwen3) {
        const std::string prefix = "model.layers." + std::to_string(layer) + ".self_attn.";
        EXPECT_EQ(to_double(own.q_norm), checkpoint.norm(prefix + "q_norm.weight"));
        EXPECT_EQ(to_double(own.k_norm), checkpoint.norm(prefix + "k_norm.weight"));
      }
      const bool v1 = options.architecture == Architecture::qwen;
      const std::string prefix = (v1 ? "transformer.h." : "model.layers.") + std::to_string(layer);
      EXPECT_EQ(to_double(own.input_norm), checkpoint.norm(prefix + (v1 ? ".ln_1.weight" : ".input_layernorm.weight")));
      EXPECT_EQ(to_double(own.post_attention_norm),
                checkpoint.norm(prefix + (v1 ? ".ln_2.weight" : ".post_attention_layernorm.weight")));
    }
    EXPECT_EQ(floats_of(weights->embedding).values, checkpoint.embedding().values);
    EXPECT_EQ(floats_of(weights->lm_head).values,
              cut(checkpoint.lm_head(), plan.shard(rank).vocab, {0, options.hidden}).values);
  }
}

struct Kind {
  const char* name;
  QuantMethod method;
  int32_t group_size;
  bool act_order, symmetric;
  int32_t bits = 4;
};

class EveryKind : public testing::TestWithParam<Kind> {};

TEST_P(EveryKind, IsDequantisedAsItsDescriptionSaysOnEveryRank) {
  const Kind kind = GetParam();
  for (const auto architecture : {Architecture::qwen2, Architecture::qwen3, Architecture::qwen}) {
    SyntheticOptions options;
    options.architecture = architecture;
    options.method = kind.method;
    options.group_size = kind.group_size;
    options.act_order = kind.act_order;
    options.symmetric = kind.symmetric;
    options.bits = kind.bits;
    if (architecture == Architecture::qwen) options.kv_heads = options.heads;
    const SyntheticCheckpoint checkpoint(options);
    for (const int size : {1, 2, 4}) expect_parts(checkpoint, options, size);
  }
}

INSTANTIATE_TEST_SUITE_P(
    Weights, EveryKind,
    testing::Values(Kind{"Dense", QuantMethod::none, 32, false, true}, Kind{"Gptq", QuantMethod::gptq, 32, false, true},
                    Kind{"GptqAsymmetric", QuantMethod::gptq, 32, false, false},
                    Kind{"GptqActOrder", QuantMethod::gptq, 32, true, true},
                    Kind{"GptqActOrderAsymmetricSmallGroups", QuantMethod::gptq, 16, true, false},
                    Kind{"GptqOneGroup", QuantMethod::gptq, -1, false, false},
                    Kind{"GptqGroupsThatFitNothing", QuantMethod::gptq, 24, false, false},
                    Kind{"GptqV2", QuantMethod::gptq_v2, 32, false, false},
                    Kind{"GptqV2ActOrder", QuantMethod::gptq_v2, 64, true, false},
                    Kind{"Awq", QuantMethod::awq, 32, false, false},
                    Kind{"AwqSmallGroups", QuantMethod::awq, 16, false, false},
                    Kind{"AwqOneGroup", QuantMethod::awq, -1, false, false},
                    Kind{"CompressedTensors", QuantMethod::compressed_tensors, 32, false, true},
                    Kind{"CompressedTensorsAsymmetric", QuantMethod::compressed_tensors, 32, false, false},
                    Kind{"CompressedTensorsActOrder", QuantMethod::compressed_tensors, 32, true, true},
                    Kind{"CompressedTensorsChannel", QuantMethod::compressed_tensors, -1, false, true},
                    Kind{"Gptq8", QuantMethod::gptq, 32, false, true, 8},
                    Kind{"Gptq8Asymmetric", QuantMethod::gptq, 32, false, false, 8},
                    Kind{"Gptq8ActOrder", QuantMethod::gptq, 32, true, true, 8},
                    Kind{"Gptq8OneGroup", QuantMethod::gptq, -1, false, true, 8},
                    Kind{"Gptq8GroupsThatFitNothing", QuantMethod::gptq, 24, false, false, 8},
                    Kind{"GptqV28", QuantMethod::gptq_v2, 32, false, false, 8},
                    Kind{"CompressedTensors8", QuantMethod::compressed_tensors, 32, false, true, 8},
                    Kind{"CompressedTensors8Asymmetric", QuantMethod::compressed_tensors, 32, false, false, 8},
                    Kind{"CompressedTensors8ActOrder", QuantMethod::compressed_tensors, 32, true, true, 8},
                    Kind{"CompressedTensors8Channel", QuantMethod::compressed_tensors, -1, false, true, 8}),
    [](const testing::TestParamInfo<Kind>& kind) { return kind.param.name; });

TEST(Weights, AreReadFromShardsInAnyFloatType) {
  for (const char* dtype : {"F16", "BF16", "F32"}) {
    SyntheticOptions options;
    options.float_dtype = dtype;
    options.shards = 3;
    options.symmetric = false;
    expect_parts(SyntheticCheckpoint(options), options, 2);
    options.method = QuantMethod::none;
    expect_parts(SyntheticCheckpoint(options), options, 2);
  }
}

TEST(Weights, OfTiedEmbeddingsShareTheTable) {
  SyntheticOptions options;
  options.tied = true;
  const SyntheticCheckpoint checkpoint(options);
  expect_parts(checkpoint, options, 2);
  const ShardPlan plan = plan_of(checkpoint.dir(), 1);
  const auto weights = load_rank_weights(checkpoint.dir(), plan, 0);
  ASSERT_TRUE(weights);
  EXPECT_EQ(weights->lm_head.data, weights->embedding.data);
}

// Random shapes, group sizes and rank counts: the parts of all ranks always make the whole.
TEST(Weights, OfRandomShapesAreCutIntoPartsThatMakeTheWhole) {
  std::mt19937 random(7);
  const auto pick = [&](std::initializer_list<int32_t> values) { return values.begin()[random() % values.size()]; };
  for (int round = 0; round < 40; ++round) {
    SyntheticOptions options;
    options.seed = random();
    options.architecture = random() % 2 == 0 ? Architecture::qwen2 : Architecture::qwen3;
    options.method = std::initializer_list<QuantMethod>{QuantMethod::none, QuantMethod::gptq, QuantMethod::gptq_v2,
                                                        QuantMethod::awq, QuantMethod::compressed_tensors}
                         .begin()[random() % 5];
    const bool awq = options.method == QuantMethod::awq;
    options.group_size = awq ? pick({-1, 8, 16}) : pick({-1, 8, 16, 32, 48, 64, 128});
    options.act_order = !awq && random() % 2 == 0;
    options.symmetric = random() % 2 == 0;
    const int size = pick({1, 2, 4, 8});
    options.heads = size * pick({1, 2});
    options.kv_heads = pick({1, 2, 4, 8});
    if (options.heads % options.kv_heads != 0 || (size % options.kv_heads != 0 && options.kv_heads % size != 0)) {
      options.kv_heads = options.heads;
    }
    options.head_dim = pick({8, 16, 24});
    options.hidden = 16 * static_cast<int32_t>(1 + random() % 6);
    options.intermediate = 16 * static_cast<int32_t>(1 + random() % 12);
    if (options.method == QuantMethod::none) options.intermediate += static_cast<int32_t>(random() % 9);
    options.vocab = 40 + static_cast<int32_t>(random() % 30);
    options.layers = 1;
    SCOPED_TRACE(testing::Message() << "round " << round << " " << name_of(options.method) << " group "
                                    << options.group_size << " act-order " << options.act_order << " intermediate "
                                    << options.intermediate << " head_dim " << options.head_dim);
    if (awq && options.group_size > 0 && (options.heads * options.head_dim) % options.group_size != 0) continue;
    expect_parts(SyntheticCheckpoint(options), options, size);
  }
}

TEST(Weights, AreTheSameWhateverTheNumberOfThreadsAndReportEveryLayer) {
  SyntheticOptions options;
  options.layers = 7;
  const SyntheticCheckpoint checkpoint(options);
  const ShardPlan plan = plan_of(checkpoint.dir(), 2);
  const auto one = load_rank_weights(checkpoint.dir(), plan, 1);
  std::vector<int> seen;
  const auto four = load_rank_weights(
      checkpoint.dir(), plan, 1,
      [&](int done, int total) {
        EXPECT_EQ(total, 7);
        seen.push_back(done);
      },
      4);
  ASSERT_TRUE(one);
  ASSERT_TRUE(four);
  EXPECT_EQ(seen, (std::vector<int>{1, 2, 3, 4, 5, 6, 7}));
  EXPECT_EQ(one->bytes, four->bytes);
  for (size_t layer = 0; layer < 7; ++layer) {
    for (const Projection p : kProjections) {
      EXPECT_EQ(dequantise(one->layers[layer].at(p)).values, dequantise(four->layers[layer].at(p)).values);
    }
  }
}

TEST(Weights, AllowAllZeroBiasesWhereTheModelHasNone) {
  SyntheticOptions options;
  options.zero_biases = true;
  const SyntheticCheckpoint checkpoint(options);
  expect_parts(checkpoint, options, 1);
}

TEST(Weights, MayLeaveSingleModulesUnquantised) {
  SyntheticOptions options;
  SyntheticCheckpoint checkpoint(options);
  const std::string module = "model.layers.1.mlp.up_proj";
  for (const char* suffix : {".qweight", ".qzeros", ".scales", ".g_idx"}) checkpoint.tensors().remove(module + suffix);
  checkpoint.tensors().add(module + ".weight", "F16", {options.intermediate, options.hidden},
                           std::vector<uint16_t>(static_cast<size_t>(options.intermediate * options.hidden), 0x3c00));
  checkpoint.write();
  const auto weights = load_rank_weights(checkpoint.dir(), plan_of(checkpoint.dir(), 2), 1);
  ASSERT_TRUE(weights) << weights.error().message;
  const Matrix up = dequantise(weights->layers[1].at(Projection::up));
  EXPECT_EQ(up.rows, plan_of(checkpoint.dir(), 2).outputs(Projection::up, 1).size());
  for (const double value : up.values) ASSERT_EQ(value, 1);
}

TEST(Weights, OfAQuantisedHeadAreItsFloats) {
  for (const auto method :
       {QuantMethod::gptq, QuantMethod::gptq_v2, QuantMethod::awq, QuantMethod::compressed_tensors}) {
    for (const bool act_order : {false, true}) {
      if (act_order && method == QuantMethod::awq) continue;
      SyntheticOptions options;
      options.method = method;
      options.quantised_head = true;
      options.symmetric = false;
      options.act_order = act_order;
      const SyntheticCheckpoint checkpoint(options);
      for (const int size : {1, 2, 4}) expect_parts(checkpoint, options, size);
    }
  }
}

TEST(Weights, LieInPlainGroupsWhereTheirIndexIsZeroThroughout) {
  for (const auto method : {QuantMethod::gptq, QuantMethod::compressed_tensors}) {
    SyntheticOptions options;
    options.method = method;
    SyntheticCheckpoint checkpoint(options);
    for (const char* name : {"self_attn.q_proj", "mlp.down_proj"}) {
      const std::string index =
          fmt::format("model.layers.0.{}.{}", name, method == QuantMethod::gptq ? "g_idx" : "weight_g_idx");
      const int32_t inputs = std::string_view(name) == "mlp.down_proj" ? options.intermediate : options.hidden;
      if (method == QuantMethod::gptq) checkpoint.tensors().remove(index);
      checkpoint.tensors().add(index, "I32", {inputs}, std::vector<int32_t>(static_cast<size_t>(inputs), 0));
    }
    checkpoint.write();
    expect_parts(checkpoint, options, 2);
  }
}

// GPTQModel's `dynamic`: other bits and groups in some modules, none at all in others. Shapes decide, on every rank.
TEST(Weights, MayHaveBitsAndGroupsOfTheirOwnInSingleModules) {
  for (const auto method : {QuantMethod::gptq, QuantMethod::compressed_tensors}) {
    SyntheticOptions options;
    options.method = method;
    options.symmetric = false;
    options.overrides = {{".1.mlp.up_proj", 8, 16}, {"k_proj", 4, 64}, {".0.mlp.down_proj", 8, -1}};
    options.dense = {".0.self_attn.o_proj", ".1.self_attn.q_proj"};
    const SyntheticCheckpoint checkpoint(options);
    for (const int size : {1, 2}) expect_parts(checkpoint, options, size);
  }
  SyntheticOptions options;
  options.overrides = {{"down_proj", 8, 32}};
  const SyntheticCheckpoint checkpoint(options);
  checkpoint.write_config_with(
      R"(, "quantization_config": {"quant_method": "gptq", "bits": 4, "group_size": 32, "sym": true,
            "dynamic": {"+:.*down_proj": {"bits": 8}, "-:.*lm_head": {}}})");
  expect_parts(checkpoint, options, 2);
}

// What the configuration says of bits, groups, order and version gives way to the tensors.
TEST(Weights, AreWhatTheirShapesAndZerosSayWhateverTheLabel) {
  SyntheticOptions options;
  options.bits = 8;
  options.group_size = 16;
  const SyntheticCheckpoint eight(options);
  eight.write_config_with(R"(, "quantization_config": {"quant_method": "gptq", "bits": 4, "group_size": 32})");
  expect_parts(eight, options, 2);

  SyntheticOptions awq_options;
  awq_options.method = QuantMethod::awq;
  awq_options.symmetric = false;
  const SyntheticCheckpoint awq(awq_options);
  awq.write_config_with(R"(, "quantization_config": {"quant_method": "auto-round", "bits": 4, "group_size": 32})");
  expect_parts(awq, awq_options, 2);

  for (const int32_t bits : {4, 8}) {
    for (const auto method : {QuantMethod::gptq, QuantMethod::gptq_v2}) {
      SyntheticOptions gptq_options;
      gptq_options.method = method;
      gptq_options.bits = bits;
      const SyntheticCheckpoint gptq(gptq_options);
      gptq.write_config_with(
          R"(, "quantization_config": {"quant_method": "awq", "zero_point": true, "bits": 4, "group_size": 32})");
      expect_parts(gptq, gptq_options, 2);
      for (const char* label : {"gptq", "gptq_v2"}) {
        gptq.write_config_with(
            R"(, "quantization_config": {"quant_method": "gptq", "sym": true, "group_size": 32, "bits": )" +
            std::to_string(bits) + R"(, "checkpoint_format": ")" + label + "\"}");
        expect_parts(gptq, gptq_options, 1);
      }
    }
  }
}

// For devices whose kernels take either 4 bits or floats.
TEST(Weights, OfEightBitsComeAsFloatsFromAWeightSource) {
  for (const auto method : {QuantMethod::gptq, QuantMethod::compressed_tensors}) {
    SyntheticOptions options;
    options.method = method;
    options.bits = 8;
    options.symmetric = false;
    options.act_order = true;
    options.overrides = {{"q_proj", 4, 32}};
    const SyntheticCheckpoint checkpoint(options);
    const ShardPlan plan = plan_of(checkpoint.dir(), 2);
    for (int rank = 0; rank < 2; ++rank) {
      const auto source = open_weights(checkpoint.dir(), plan, rank);
      ASSERT_TRUE(source) << source.error().message;
      const auto layer = (*source)->layer(1);
      ASSERT_TRUE(layer) << layer.error().message;
      for (const Projection p : kProjections) {
        EXPECT_EQ(std::holds_alternative<kernels::DenseWeight>(layer->at(p).weight), p != Projection::q);
        const Matrix part = dequantise(layer->at(p));
        const Matrix expected = cut(checkpoint.weight(1, p), plan.outputs(p, rank), plan.inputs(p, rank));
        ASSERT_EQ(part.values.size(), expected.values.size());
        for (size_t i = 0; i < expected.values.size(); ++i) {
          ASSERT_FLOAT_EQ(static_cast<float>(part.values[i]), static_cast<float>(expected.values[i])) << i;
        }
      }
    }
  }
}

// Everything that a rank holds is its own: what happens to the files later changes nothing.
TEST(Weights, StayWhatWasLoadedWhenTheFilesAreWrittenOverOrCutShort) {
  for (const auto method : {QuantMethod::gptq, QuantMethod::none}) {
    for (const bool tied : {false, true}) {
      SyntheticOptions options;
      options.method = method;
      options.tied = tied;
      const SyntheticCheckpoint checkpoint(options);
      const auto weights = load_rank_weights(checkpoint.dir(), plan_of(checkpoint.dir(), 1), 0);
      ASSERT_TRUE(weights) << weights.error().message;
      const auto path = checkpoint.dir() / "model.safetensors";
      const auto size = std::filesystem::file_size(path);
      {
        std::fstream file(path, std::ios::in | std::ios::out | std::ios::binary);  // in place, as cp does
        file.write(std::string(size, '\x7f').data(), static_cast<std::streamsize>(size));
      }
      std::filesystem::resize_file(path, 16);
      EXPECT_EQ(floats_of(weights->embedding).values, checkpoint.embedding().values);
      EXPECT_EQ(floats_of(weights->lm_head).values, checkpoint.lm_head().values);
      for (const Projection p : kProjections) {
        EXPECT_EQ(dequantise(weights->layers[1].at(p)).values.size(), checkpoint.weight(1, p).values.size());
        EXPECT_FLOAT_EQ(static_cast<float>(dequantise(weights->layers[1].at(p)).at(3, 5)),
                        static_cast<float>(checkpoint.weight(1, p).at(3, 5)));
      }
    }
  }
}

TEST(Weights, AreRefusedWhenTheirFileIsCutShortOrWrittenToWhileItIsRead) {
  struct Change {
    const char* reason;
    std::function<void(const std::filesystem::path&)> make;
  };
  for (const Change& change : std::vector<Change>{
           {"became shorter while it was read", [](const auto& path) { std::filesystem::resize_file(path, 4096); }},
           {"was written to while it was read", [](const auto& path) {
              std::fstream file(path, std::ios::in | std::ios::out | std::ios::binary);
              file.seekp(-1, std::ios::end);
              file.put('x');
            }}}) {
    const SyntheticCheckpoint checkpoint{SyntheticOptions{}};
    const auto path = checkpoint.dir() / "model.safetensors";
    // Long ago, so that the clock need not have moved on since.
    std::filesystem::last_write_time(path, std::filesystem::file_time_type::clock::now() - std::chrono::hours(1));
    const auto source = open_weights(checkpoint.dir(), plan_of(checkpoint.dir(), 1), 0);
    ASSERT_TRUE(source) << source.error().message;
    ASSERT_TRUE((*source)->layer(0));
    change.make(path);
    const auto layer = (*source)->layer(1);
    ASSERT_FALSE(layer.has_value());
    EXPECT_THAT(layer.error().message, AllOf(HasSubstr("model.safetensors"), HasSubstr(change.reason)));
    const auto outer = (*source)->outer();
    ASSERT_FALSE(outer.has_value());
    EXPECT_THAT(outer.error().message, HasSubstr(change.reason));
  }
}

TEST(DummyWeights, AreOneModelWhateverTheNumberOfRanks) {
  for (const QuantMethod method : {QuantMethod::gptq, QuantMethod::none}) {
    SyntheticOptions options;
    options.method = method;
    options.group_size = 32;
    const SyntheticCheckpoint checkpoint(options);
    const ShardPlan one = plan_of(checkpoint.dir(), 1);
    const RankWeights whole = make_dummy_rank_weights(one, 0, 3);
    EXPECT_NE(dequantise(whole.layers[0].at(Projection::q)).values,
              dequantise(make_dummy_rank_weights(one, 0, 4).layers[0].at(Projection::q)).values);
    EXPECT_NE(dequantise(whole.layers[0].at(Projection::gate)).values,
              dequantise(whole.layers[0].at(Projection::up)).values);
    const ShardPlan four = plan_of(checkpoint.dir(), 4);
    for (int rank = 0; rank < 4; ++rank) {
      const RankWeights part = make_dummy_rank_weights(four, rank, 3);
      EXPECT_EQ(floats_of(part.embedding).values, floats_of(whole.embedding).values);
      EXPECT_EQ(floats_of(part.lm_head).values,
                cut(floats_of(whole.lm_head), four.shard(rank).vocab, {0, options.hidden}).values);
      for (const Projection p : kProjections) {
        EXPECT_EQ(dequantise(part.layers[1].at(p)).values,
                  cut(dequantise(whole.layers[1].at(p)), four.outputs(p, rank), four.inputs(p, rank)).values)
            << module_name_of(p);
      }
    }
  }
}

}  // namespace
}  // namespace lorikeet::model
