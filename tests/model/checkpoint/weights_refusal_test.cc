// What loading says of checkpoints that are not right, or not quite.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <functional>

#include "model/checkpoint/weights.h"
#include "tests/model/checkpoint/synthetic_checkpoint.h"

namespace lorikeet::model {
namespace {

using testing::AllOf;
using testing::HasSubstr;
using tests::plan_of;
using tests::SyntheticCheckpoint;
using tests::SyntheticOptions;

// What a change of the tensors makes of loading.
std::string error_after(const SyntheticOptions& options, const std::function<void(SyntheticCheckpoint&)>& change) {
  SyntheticCheckpoint checkpoint(options);
  change(checkpoint);
  checkpoint.write();
  const auto weights = load_rank_weights(checkpoint.dir(), plan_of(checkpoint.dir(), 1), 0, {}, 2);
  return weights ? "" : weights.error().message;
}

TEST(Weights, AreRefusedWithANonZeroBiasWhereTheModelHasNone) {
  const auto error = error_after({}, [](SyntheticCheckpoint& c) {
    std::vector<float> bias(64, 0);
    bias[5] = 0.25F;
    c.tensors().add("model.layers.0.self_attn.o_proj.bias", "F32", {64}, bias);
  });
  EXPECT_THAT(error, HasSubstr("o_proj.bias: 1 of 64 values are not zero"));
}

TEST(Weights, AreRefusedWithTensorsThatHaveNoPlace) {
  EXPECT_THAT(
      error_after({},
                  [](SyntheticCheckpoint& c) {
                    c.tensors().add("lm_head.bias", "F32", {1}, std::vector<float>{1});
                    c.tensors().add("model.layers.2.mlp.up_proj.qweight", "I32", {1}, std::vector<int32_t>{1});
                  }),
      HasSubstr("2 tensors that Qwen2ForCausalLM (quantisation: gptq, 2 layers) has no place for: lm_head.bias, "
                "model.layers.2.mlp.up_proj.qweight"));
  const auto add_head = [](SyntheticCheckpoint& c) {
    c.tensors().add("lm_head.qweight", "I32", {1}, std::vector<int32_t>{1});
  };
  EXPECT_THAT(error_after({}, add_head), HasSubstr("lm_head is there both quantised and not"));
  SyntheticOptions tied;
  tied.tied = true;
  EXPECT_THAT(error_after(tied, add_head),
              HasSubstr("config.json ties the embeddings, yet lm_head is there of its own"));
  SyntheticOptions quantised;
  quantised.quantised_head = true;
  EXPECT_THAT(error_after(quantised, [](SyntheticCheckpoint& c) { c.tensors().remove("lm_head.scales"); }),
              HasSubstr("no tensor named lm_head.scales"));
  EXPECT_THAT(error_after({},
                          [](SyntheticCheckpoint& c) {
                            c.tensors().add("model.layers.0.self_attn.q_norm.weight", "F32", {1},
                                            std::vector<float>{1});
                          }),
              HasSubstr("q_norm"));
}

TEST(Weights, IgnoreTheRotaryTableOfOldCheckpoints) {
  EXPECT_EQ(error_after({},
                        [](SyntheticCheckpoint& c) {
                          c.tensors().add("model.layers.0.self_attn.rotary_emb.inv_freq", "F32", {1},
                                          std::vector<float>{1});
                        }),
            "");
}

TEST(Weights, AreRefusedWithMissingTensorsByName) {
  for (const char* name :
       {"model.embed_tokens.weight", "lm_head.weight", "model.norm.weight", "model.layers.1.input_layernorm.weight",
        "model.layers.0.self_attn.k_proj.bias", "model.layers.1.mlp.down_proj.qzeros",
        "model.layers.1.mlp.down_proj.scales", "model.layers.0.mlp.gate_proj.qweight"}) {
    const auto error = error_after({}, [&](SyntheticCheckpoint& c) { c.tensors().remove(name); });
    EXPECT_THAT(error, HasSubstr(std::string(name).substr(0, std::string(name).rfind('.')))) << name;
    EXPECT_THAT(error, HasSubstr("no tensor named")) << name;
  }
}

TEST(Weights, AreRefusedWithWrongShapesAndTypes) {
  const auto replaced = [](const std::string& name, const std::string& dtype, std::vector<int64_t> shape,
                           size_t bytes) {
    return error_after({}, [&](SyntheticCheckpoint& c) {
      c.tensors().remove(name);
      c.tensors().add(name, dtype, shape, std::vector<uint8_t>(bytes, 0));
    });
  };
  EXPECT_THAT(replaced("model.layers.0.mlp.up_proj.qweight", "I32", {8, 95}, 8 * 95 * 4),
              HasSubstr("up_proj.qweight has shape [8, 95], expected [8, 96]"));
  EXPECT_THAT(replaced("model.layers.0.mlp.up_proj.scales", "I32", {2, 96}, 2 * 96 * 4),
              HasSubstr("up_proj.scales is I32, expected F16, BF16 or F32"));
  EXPECT_THAT(replaced("model.layers.0.mlp.up_proj.qzeros", "F32", {2, 12}, 2 * 12 * 4),
              HasSubstr("up_proj.qzeros is F32, expected I32"));
  EXPECT_THAT(replaced("model.embed_tokens.weight", "F16", {79, 64}, 79 * 64 * 2),
              HasSubstr("model.embed_tokens.weight has shape [79, 64], expected [80, 64]"));
  EXPECT_THAT(replaced("model.norm.weight", "I64", {64}, 64 * 8), HasSubstr("model.norm.weight is I64"));
}

TEST(Weights, AreRefusedWithValuesThatCannotBeRight) {
  EXPECT_THAT(error_after({},
                          [](SyntheticCheckpoint& c) {
                            c.tensors().remove("model.layers.1.mlp.up_proj.scales");
                            std::vector<uint16_t> scales(2 * 96, 0x3c00);
                            scales[100] = 0x7e00;
                            c.tensors().add("model.layers.1.mlp.up_proj.scales", "F16", {2, 96}, scales);
                          }),
              HasSubstr("up_proj.scales: element 100 is not finite"));
  EXPECT_THAT(error_after({},
                          [](SyntheticCheckpoint& c) {
                            c.tensors().remove("model.layers.1.mlp.up_proj.g_idx");
                            std::vector<int32_t> index(64, 0);
                            index[3] = 2;
                            c.tensors().add("model.layers.1.mlp.up_proj.g_idx", "I32", {64}, index);
                          }),
              HasSubstr("up_proj.g_idx: input 3 is of group 2, there are 2 groups"));
  EXPECT_THAT(error_after({},
                          [](SyntheticCheckpoint& c) {
                            c.tensors().remove("model.layers.1.mlp.up_proj.qzeros");
                            std::vector<uint32_t> zeros(2 * 12, 0x77777777);
                            zeros[13] = 0x777777f7;
                            c.tensors().add("model.layers.1.mlp.up_proj.qzeros", "I32", {2, 12}, zeros);
                          }),
              HasSubstr("the stored zero of group 1, output 9 is 15"));
  EXPECT_THAT(error_after({},
                          [](SyntheticCheckpoint& c) {
                            c.tensors().remove("model.norm.weight");
                            c.tensors().add("model.norm.weight", "F32", {64}, std::vector<float>(64, INFINITY));
                          }),
              HasSubstr("model.norm.weight: element 0 is not finite"));
}

// A symmetric file of one GPTQ version read as the other would shift every weight by one step.
TEST(Weights, AreRefusedWhenTheirZerosAreOfTheOtherGptqVersion) {
  for (const QuantMethod method : {QuantMethod::gptq, QuantMethod::gptq_v2}) {
    SyntheticOptions options;
    options.method = method;
    const uint32_t other = method == QuantMethod::gptq ? 0x88888888 : 0x77777777;
    const auto change = [&](SyntheticCheckpoint& c) {
      c.tensors().remove("model.layers.0.mlp.up_proj.qzeros");
      c.tensors().add("model.layers.0.mlp.up_proj.qzeros", "I32", {2, 12}, std::vector<uint32_t>(24, other));
    };
    EXPECT_THAT(error_after(options, change), HasSubstr("checkpoint_format is wrong"));
    options.symmetric = false;
    EXPECT_EQ(error_after(options, change), "");
  }
}

TEST(Weights, AreRefusedWhenAModuleIsThereTwice) {
  EXPECT_THAT(
      error_after(
          {},
          [](SyntheticCheckpoint& c) {
            c.tensors().add("model.layers.0.mlp.up_proj.weight", "F16", {96, 64}, std::vector<uint16_t>(96 * 64, 0));
          }),
      HasSubstr("model.layers.0.mlp.up_proj is there both quantised and not"));
}

TEST(Weights, AreRefusedWhenTheConfigurationTiesWhatTheFileDoesNot) {
  SyntheticOptions options;
  options.tied = true;
  EXPECT_THAT(error_after(options,
                          [](SyntheticCheckpoint& c) {
                            c.tensors().add("lm_head.weight", "F16", {80, 64}, std::vector<uint16_t>(80 * 64, 0));
                          }),
              HasSubstr("config.json ties the embeddings, yet lm_head.weight differs"));
}

// Saved a second time in another type all the same: equal as that type rounds.
TEST(Weights, MayHoldATiedHeadInAnyTypeAsLongAsItIsTheEmbedding) {
  const auto with_head = [](const char* table_type, const char* head_type, bool changed) {
    SyntheticOptions options;
    options.tied = true;
    options.float_dtype = table_type;
    return error_after(options, [&](SyntheticCheckpoint& c) {
      std::vector<float> values(c.embedding().values.begin(), c.embedding().values.end());
      if (changed) values[70] *= 1.25F;
      std::vector<uint16_t> halves;
      for (const float value : values) {
        halves.push_back(std::string(head_type) == "BF16" ? kernels::float_to_bf16(value)
                                                          : kernels::float_to_half(value));
      }
      if (std::string(head_type) == "F32") {
        c.tensors().add("lm_head.weight", "F32", {80, 64}, values);
      } else {
        c.tensors().add("lm_head.weight", head_type, {80, 64}, halves);
      }
    });
  };
  for (const char* table : {"F16", "BF16", "F32"}) {
    for (const char* head : {"F16", "BF16", "F32"}) {
      EXPECT_EQ(with_head(table, head, false), "") << table << " " << head;
      EXPECT_THAT(with_head(table, head, true), HasSubstr("lm_head.weight differs")) << table << " " << head;
    }
  }
}

TEST(Weights, OfCompressedTensorsThatAreNotPackedAreRefused) {
  SyntheticOptions options;
  options.method = QuantMethod::compressed_tensors;
  const std::string module = "model.layers.0.mlp.up_proj";
  EXPECT_THAT(error_after(options, [&](SyntheticCheckpoint& c) { c.tensors().remove(module + ".weight_packed"); }),
              HasSubstr("no tensor named " + module + ".weight, nor its quantised form"));
  EXPECT_THAT(error_after(options,
                          [&](SyntheticCheckpoint& c) {
                            c.tensors().remove(module + ".weight_packed");
                            c.tensors().add(module + ".weight", "F16", {96, 64}, std::vector<uint16_t>(96 * 64, 0));
                          }),
              HasSubstr(module + ".weight_scale is there, weight_packed is not: the weights are not packed"));
  EXPECT_EQ(error_after(options, [&](SyntheticCheckpoint& c) { c.tensors().remove(module + ".weight_shape"); }), "");
}

TEST(Weights, AreRefusedWithASentenceWhereNothingSaysHowTheyAreQuantised) {
  EXPECT_THAT(error_after({}, [](SyntheticCheckpoint& c) { c.write_config_with(""); }),
              AllOf(HasSubstr("the weights are quantised"), HasSubstr("quantization_config"), HasSubstr("qweight")));
}

TEST(Weights, OfTwoThreeOrFewerBitsAreRefusedByThatNumber) {
  for (const int bits : {2, 3, 16}) {
    const int64_t rows = 64 * bits / 32;
    EXPECT_THAT(error_after({},
                            [&](SyntheticCheckpoint& c) {
                              c.tensors().remove("model.layers.0.mlp.up_proj.qweight");
                              c.tensors().add("model.layers.0.mlp.up_proj.qweight", "I32", {rows, 96},
                                              std::vector<int32_t>(static_cast<size_t>(rows) * 96, 0));
                            }),
                HasSubstr(fmt::format("up_proj: values of {} bits: only 4 and 8 are served", bits)));
  }
}

TEST(Weights, OfCompressedTensorsAreRefusedWhereTheStatedShapeDiffers) {
  SyntheticOptions options;
  options.method = QuantMethod::compressed_tensors;
  EXPECT_THAT(
      error_after(
          options,
          [](SyntheticCheckpoint& c) {
            c.tensors().remove("model.layers.0.mlp.up_proj.weight_shape");
            c.tensors().add("model.layers.0.mlp.up_proj.weight_shape", "I64", {2}, std::vector<int64_t>{96, 63});
          }),
      HasSubstr("up_proj.weight_shape says [96, 63], expected [96, 64]"));
  options.symmetric = false;
  EXPECT_THAT(
      error_after(options,
                  [](SyntheticCheckpoint& c) { c.tensors().remove("model.layers.0.mlp.up_proj.weight_zero_point"); }),
      HasSubstr("up_proj is asymmetric and has no weight_zero_point"));
}

TEST(Weights, AreRefusedWhereAnAwqLabelHidesWhichGptqTheyAre) {
  SyntheticOptions options;
  options.symmetric = false;
  const SyntheticCheckpoint gptq(options);
  gptq.write_config_with(R"(, "quantization_config": {"quant_method": "awq", "bits": 4, "group_size": 32})");
  const auto weights = load_rank_weights(gptq.dir(), plan_of(gptq.dir(), 1), 0);
  ASSERT_FALSE(weights);
  EXPECT_THAT(weights.error().message, AllOf(HasSubstr("packed as GPTQ does, not as AWQ"), HasSubstr("which version")));
}

}  // namespace
}  // namespace lorikeet::model
