#include "model/adapter/adapter.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cmath>
#include <filesystem>

#include "tests/model/adapter/adapter_base.h"
#include "tests/model/checkpoint/synthetic_checkpoint.h"

namespace lorikeet::model {
namespace {

using testing::AllOf;
using testing::HasSubstr;
using tests::SyntheticAdapter;
using tests::SyntheticCheckpoint;
using tests::SyntheticOptions;

TEST(Adapter, GivesPairsByLayerAndProjection) {
  SyntheticAdapter files;
  files.config =
      tests::plain_adapter_config(5, 10, {"q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"});
  files.config["rank_pattern"] = {{"down_proj", 3}};
  files.config["alpha_pattern"] = {{"down_proj", 12}};
  const ModelConfig config = config_of();
  std::map<std::pair<int, Projection>, SyntheticAdapter::Pair> expected;
  for (const int layer : {0, 2}) {
    for (const Projection p : kProjections) {
      expected[{layer, p}] = files.add_pair(module_of(layer, p), p == Projection::down ? 3 : 5, input_size(config, p),
                                            output_size(config, p));
    }
  }
  files.write();
  const Adapter adapter = read(files, config);
  EXPECT_EQ(adapter.layers.size(), 3u);
  EXPECT_EQ(adapter.max_rank, 5);
  EXPECT_EQ(adapter.digest.size(), 32u);
  EXPECT_FALSE(adapter.uses_dora());
  uint64_t values = 0;
  for (const auto& [key, pair] : expected) {
    const LoraPair& own = pair_of(adapter, key.first, key.second);
    EXPECT_EQ(own.a, pair.a);
    EXPECT_EQ(own.b, pair.b);
    EXPECT_FLOAT_EQ(own.scale, key.second == Projection::down ? 4 : 2);
    EXPECT_EQ(own.rank, key.second == Projection::down ? 3 : 5);
    values += pair.a.size() + pair.b.size();
  }
  EXPECT_EQ(adapter.bytes, 4 * values);
  for (const auto& pair : adapter.layers[1]) EXPECT_FALSE(pair.has_value());
}

TEST(Adapter, ReadsHalfAndBfloatTensors) {
  SyntheticAdapter files;
  files.config = tests::plain_adapter_config(1, 1, {"q_proj"});
  files.tensors.add("base_model.model." + module_of(0, Projection::q) + ".lora_A.weight", "F16", {1, 64},
                    std::vector<uint16_t>(64, 0x3e00));
  files.tensors.add("base_model.model." + module_of(0, Projection::q) + ".lora_B.weight", "BF16", {64, 1},
                    std::vector<uint16_t>(64, 0xc020));
  files.write();
  const Adapter adapter = read(files, config_of());
  EXPECT_EQ(pair_of(adapter, 0, Projection::q).a, std::vector<float>(64, 1.5F));
  EXPECT_EQ(pair_of(adapter, 0, Projection::q).b, std::vector<float>(64, -2.5F));
}

TEST(Adapter, HasADigestOfItsContentAndNotOfItsName) {
  SyntheticAdapter one(1), same(1), other(2);
  for (auto* files : {&one, &same, &other}) {
    fill(*files);
    files->write();
  }
  const std::string digest = read(one, config_of()).digest;
  EXPECT_EQ(read(same, config_of()).digest, digest);
  EXPECT_NE(read(other, config_of()).digest, digest);
  one.config["lora_alpha"] = 9;
  one.write();
  EXPECT_NE(read(one, config_of()).digest, digest);
}

TEST(Adapter, IsTheSameWhateverTheThreadsThatReadIt) {
  SyntheticAdapter files;
  files.config = tests::plain_adapter_config(4, 8, {"q_proj", "down_proj"});
  for (int layer = 0; layer < 3; ++layer) {
    files.add_pair(module_of(layer, Projection::q), 4, 64, 64);
    files.add_pair(module_of(layer, Projection::down), 4, 96, 64);
  }
  files.write();
  const Adapter one = read(files, config_of());
  const auto many = read_adapter(files.dir(), config_of(), {kMaxLoraRank, {}, 5});
  ASSERT_TRUE(many) << many.error().message;
  EXPECT_EQ(many->digest, one.digest);
  for (int layer = 0; layer < 3; ++layer) {
    for (const Projection p : {Projection::q, Projection::down}) {
      EXPECT_EQ(pair_of(*many, layer, p).a, pair_of(one, layer, p).a);
      EXPECT_EQ(pair_of(*many, layer, p).b, pair_of(one, layer, p).b);
    }
  }
}

TEST(Adapter, HasAnotherDigestWhereTensorsChangePlaces) {
  // The same bytes under each other's names.
  const auto write = [](SyntheticAdapter& files, int first, int second) {
    files.config = tests::plain_adapter_config(4, 8, {"q_proj"});
    for (const int layer : {first, second}) files.add_pair(module_of(layer, Projection::q), 4, 64, 64);
    files.write();
  };
  SyntheticAdapter one(3), other(3);
  write(one, 0, 1);
  write(other, 1, 0);
  EXPECT_NE(read(one, config_of()).digest, read(other, config_of()).digest);
}

TEST(Adapter, TakesOddRanksUpTo512AndTheOptionsLimit) {
  for (const int rank : {1, 3, 7, 63, 511, 512}) {
    SyntheticAdapter files;
    fill(files, rank);
    EXPECT_EQ(error_of(files), "") << rank;
  }
  SyntheticAdapter files;
  fill(files, 513);
  EXPECT_THAT(error_of(files), HasSubstr("has rank 513, at most 512 is served"));
  SyntheticAdapter small;
  fill(small, 17);
  EXPECT_THAT(error_of(small, config_of(), {16}), HasSubstr("has rank 17, at most 16 is served"));
}

// x's mean over each group of 16 inputs, times the 4 groups of them, as PEFT has it: A's columns 16 times, times 4 / 16.
TEST(Adapter, SpreadsQaLorasGroupsOverTheirInputs) {
  SyntheticAdapter files;
  files.config = tests::plain_adapter_config(4, 8, {"q_proj", "v_proj"});
  files.config["use_qalora"] = true;
  const auto pooled = files.add_pair(module_of(1, Projection::q), 4, 64 / 16, 64);
  const auto plain = files.add_pair(module_of(1, Projection::v), 4, 64, 16);  // of a module that is not quantised
  files.write();
  const Adapter adapter = read(files, config_of());
  const LoraPair& q = pair_of(adapter, 1, Projection::q);
  EXPECT_EQ(q.inputs, 64);
  EXPECT_FLOAT_EQ(q.scale, 2 * 4 / 16.F);
  const std::vector<float> a = q.a.floats();
  ASSERT_EQ(a.size(), 4 * 64u);
  for (size_t i = 0; i < a.size(); ++i) ASSERT_EQ(a[i], pooled.a[i / 16]) << i;
  EXPECT_EQ(q.b.floats(), pooled.b);
  EXPECT_EQ(pair_of(adapter, 1, Projection::v).a.floats(), plain.a);
  EXPECT_EQ(pair_of(adapter, 1, Projection::v).scale, 2);
  files.config["qalora_group_size"] = 32;
  EXPECT_THAT(error_of(files), HasSubstr("has shape [4, 4], the base and adapter_config.json call for [4, 64]"));
  files.config["qalora_group_size"] = 1;
  EXPECT_THAT(error_of(files), HasSubstr("qalora_group_size = 1: must be a whole number from 2"));
  files.config["qalora_group_size"] = 16;
  files.config["use_dora"] = true;
  EXPECT_THAT(error_of(files), HasSubstr("QA-LoRA with DoRA is not served"));
}

TEST(Adapter, ReadsDoraUnderBothNamesOfTheMagnitude) {
  SyntheticAdapter files;
  fill(files);
  files.config["use_dora"] = true;
  const auto q = files.add_vector(module_of(1, Projection::q) + ".lora_magnitude_vector", 64);
  const auto down = files.add_vector(module_of(1, Projection::down) + ".lora_magnitude_vector.weight", 64);
  files.write();
  const Adapter adapter = read(files, config_of());
  EXPECT_TRUE(adapter.uses_dora());
  EXPECT_EQ(pair_of(adapter, 1, Projection::q).magnitude, q);
  EXPECT_EQ(pair_of(adapter, 1, Projection::down).magnitude, down);
}

TEST(Adapter, RefusesDoraThatIsIncomplete) {
  SyntheticAdapter files;
  fill(files);
  files.config["use_dora"] = true;
  files.add_vector(module_of(1, Projection::q) + ".lora_magnitude_vector", 64);
  EXPECT_THAT(error_of(files),
              HasSubstr("use_dora is on, yet 1 of 2 modules have no magnitude: model.layers.1.mlp.down_proj"));
  files.config["use_dora"] = false;
  EXPECT_THAT(error_of(files), HasSubstr("1 of 2 modules have a DoRA magnitude, yet use_dora is off"));
}

TEST(Adapter, ReadsLoraOnTheEmbeddingAndLmHead) {
  SyntheticAdapter files;
  files.config = tests::plain_adapter_config(4, 8, {"embed_tokens", "lm_head"});
  const auto ea = files.add_matrix("model.embed_tokens.lora_embedding_A", 4, 50);
  const auto eb = files.add_matrix("model.embed_tokens.lora_embedding_B", 64, 4);
  const auto head = files.add_pair("lm_head", 4, 64, 50);
  files.write();
  const Adapter adapter = read(files, config_of());
  ASSERT_TRUE(adapter.embedding);
  EXPECT_EQ(adapter.embedding->a, ea);
  EXPECT_EQ(adapter.embedding->b, eb);
  EXPECT_EQ(adapter.embedding->inputs, 50);
  EXPECT_EQ(adapter.embedding->outputs, 64);
  ASSERT_TRUE(adapter.lm_head);
  EXPECT_EQ(adapter.lm_head->b, head.b);
  const auto plan = ShardPlan::make(config_of(), 2);
  ASSERT_TRUE(plan);
  const Adapter part = cut_adapter(adapter, *plan, 1);
  EXPECT_EQ(part.embedding->a, ea);
  const Range rows = plan->shard(1).vocab;
  EXPECT_EQ(part.lm_head->outputs, rows.size());
  EXPECT_EQ(part.lm_head->b, std::vector<float>(head.b.begin() + rows.begin * 4, head.b.begin() + rows.end * 4));
}

TEST(Adapter, RefusesDoraOnLmHead) {
  SyntheticAdapter files;
  files.config = tests::plain_adapter_config(4, 8, {"lm_head"});
  files.config["use_dora"] = true;
  files.add_pair("lm_head", 4, 64, 50);
  files.add_vector("lm_head.lora_magnitude_vector", 50);
  EXPECT_THAT(error_of(files), HasSubstr("DoRA on lm_head is not served"));
}

// PEFT saves the base's own embedding beside a LoRA on it.
TEST(Adapter, TakesCopiesOfTheBaseOnlyWhereTheyAreEqual) {
  SyntheticOptions options;
  options.vocab = 50;
  options.layers = 3;
  const SyntheticCheckpoint base(options);
  const auto config = read_model_config(base.dir());
  ASSERT_TRUE(config) << config.error().message;
  const auto with_copy = [&](double change) {
    SyntheticAdapter files;
    files.config = tests::plain_adapter_config(4, 8, {"lm_head"});
    files.add_pair("lm_head", 4, 64, 50);
    std::vector<float> copy(base.lm_head().values.begin(), base.lm_head().values.end());
    copy[17] += static_cast<float>(change);
    files.tensors.add("base_model.model.lm_head.base_layer.weight", "F32", {50, 64}, copy);
    return error_of(files, *config);
  };
  EXPECT_EQ(with_copy(0), "");
  EXPECT_THAT(with_copy(0.001), HasSubstr("lm_head.base_layer.weight: weights of the base itself that differ"));

  // In the type that it was trained in, under every name that PEFT gives it, as a target and in modules_to_save.
  const auto rounded = [&](const std::string& name, bool is_saved, size_t changed) {
    SyntheticAdapter files;
    const bool head = name.find("lm_head") != std::string::npos;
    files.config = tests::plain_adapter_config(4, 8, {is_saved ? "q_proj" : head ? "lm_head" : "embed_tokens"});
    if (is_saved) {
      files.config["modules_to_save"] = {head ? "lm_head" : "embed_tokens"};
      files.add_pair(module_of(1, Projection::q), 4, 64, 64);
    } else if (head) {
      files.add_pair("lm_head", 4, 64, 50);
    } else {
      files.add_matrix("model.embed_tokens.lora_embedding_A", 4, 50);
      files.add_matrix("model.embed_tokens.lora_embedding_B", 64, 4);
    }
    std::vector<uint16_t> copy;
    for (const double value : (head ? base.lm_head() : base.embedding()).values) {
      copy.push_back(kernels::float_to_bf16(static_cast<float>(value)));
    }
    if (changed < copy.size()) copy[changed] ^= 2;
    files.tensors.add("base_model.model." + name, "BF16", {50, 64}, copy);
    return error_of(files, *config);
  };
  constexpr size_t kNone = 50 * 64;
  for (const char* name :
       {"lm_head.weight", "lm_head.base_layer.weight", "lm_head.modules_to_save.default.weight",
        "lm_head.original_module.weight", "model.embed_tokens.weight", "model.embed_tokens.base_layer.weight"}) {
    for (const bool is_saved : {false, true}) {
      EXPECT_EQ(rounded(name, is_saved, kNone), "") << name << is_saved;
      for (const size_t changed : {size_t{0}, kNone - 1}) {
        EXPECT_THAT(rounded(name, is_saved, changed), HasSubstr("weights of the base itself that differ")) << name;
      }
    }
  }

  // Each of several copies is looked at.
  SyntheticAdapter several;
  several.config = tests::plain_adapter_config(4, 8, {"lm_head"});
  several.add_pair("lm_head", 4, 64, 50);
  const std::vector<float> own(base.lm_head().values.begin(), base.lm_head().values.end());
  several.tensors.add("base_model.model.lm_head.base_layer.weight", "F32", {50, 64}, own);
  several.tensors.add("base_model.model.lm_head.weight", "F32", {50, 64}, std::vector<float>(50 * 64, 0));
  EXPECT_THAT(error_of(several, *config), HasSubstr("lm_head.weight: weights of the base itself that differ"));

  SyntheticAdapter nowhere;
  nowhere.config = tests::plain_adapter_config(4, 8, {"lm_head"});
  nowhere.add_pair("lm_head", 4, 64, 50);
  nowhere.add_matrix("lm_head.weight", 50, 64);
  EXPECT_THAT(error_of(nowhere), HasSubstr("no checkpoint is there to compare with"));
}

TEST(Adapter, SplitsTheFusedAttentionOfQwenV1) {
  const ModelConfig config = config_of(Architecture::qwen);
  SyntheticAdapter files;
  files.config = tests::plain_adapter_config(4, 8, {"c_attn", "c_proj", "w1", "w2"});
  const auto fused = files.add_pair("transformer.h.1.attn.c_attn", 4, 64, 192);
  const auto o = files.add_pair("transformer.h.1.attn.c_proj", 4, 64, 64);
  const auto up = files.add_pair("transformer.h.1.mlp.w1", 4, 64, 96);
  const auto gate = files.add_pair("transformer.h.1.mlp.w2", 4, 64, 96);
  const auto down = files.add_pair("transformer.h.1.mlp.c_proj", 4, 96, 64);
  files.write();
  const Adapter adapter = read(files, config);
  int third = 0;
  for (const Projection p : {Projection::q, Projection::k, Projection::v}) {
    const LoraPair& pair = pair_of(adapter, 1, p);
    EXPECT_EQ(pair.a, fused.a);
    EXPECT_EQ(pair.b, std::vector<float>(fused.b.begin() + third * 256, fused.b.begin() + (third + 1) * 256));
    EXPECT_EQ(pair.outputs, 64);
    ++third;
  }
  EXPECT_EQ(pair_of(adapter, 1, Projection::o).b, o.b);
  EXPECT_EQ(pair_of(adapter, 1, Projection::up).b, up.b);
  EXPECT_EQ(pair_of(adapter, 1, Projection::gate).b, gate.b);
  EXPECT_EQ(pair_of(adapter, 1, Projection::down).a, down.a);
}

// As frameworks write them from a module's state_dict.
TEST(Adapter, IsTheSameUnderEveryNameOfItsTensors) {
  const auto named = [](const std::string& before, const std::string& adapter) {
    SyntheticAdapter files;
    files.config = tests::plain_adapter_config(4, 8, {"q_proj", "lm_head"});
    for (const std::string& module : {std::string("layers.1.self_attn.q_proj"), std::string("lm_head")}) {
      for (const char part : {'A', 'B'}) {
        const int64_t rows = part == 'A' ? 4 : module == "lm_head" ? 50 : 64;
        const std::vector<float> values(static_cast<size_t>(rows * (part == 'A' ? 64 : 4)), part == 'A' ? 0.5F : 0.25F);
        const std::string inner =
            module == "lm_head" ? before.substr(0, before.size() - std::string("model.").size()) : before;
        files.tensors.add(inner + module + ".lora_" + part + adapter + ".weight", "F32", {rows, part == 'A' ? 64 : 4},
                          values);
      }
    }
    files.write();
    return read(files, config_of());
  };
  const Adapter plain = named("base_model.model.model.", "");
  for (const char* before : {"base_model.model.model.", "model.", "_orig_mod.base_model.model.model."}) {
    for (const char* adapter : {"", ".default", ".some-name"}) {
      const Adapter other = named(before, adapter);
      EXPECT_EQ(pair_of(other, 1, Projection::q).b, pair_of(plain, 1, Projection::q).b);
      EXPECT_EQ(pair_of(other, 1, Projection::q).scale, 2);
      ASSERT_TRUE(other.lm_head);
      EXPECT_EQ(other.lm_head->a, plain.lm_head->a);
    }
  }
}

TEST(Adapter, IsFoundByAnExpressionForTheNamesThatItsFrameworkSaw) {
  SyntheticAdapter files;
  files.config = tests::plain_adapter_config(4, 8, {});
  files.config["target_modules"] = "layers\\.1\\.self_attn\\.q_proj";
  files.tensors.add("base_model.model.layers.1.self_attn.q_proj.lora_A.weight", "F32", {4, 64},
                    std::vector<float>(256, 1));
  files.tensors.add("base_model.model.layers.1.self_attn.q_proj.lora_B.weight", "F32", {64, 4},
                    std::vector<float>(256, 1));
  EXPECT_EQ(error_of(files), "");
}

// The list of what PEFT and trainers write beside the two files that are read.
TEST(Adapter, ReadsTwoFilesAndRefusesOthersThatHoldWeights) {
  SyntheticAdapter files;
  fill(files);
  for (const char* harmless :
       {"README.md", "training_args.bin", "optimizer.pt", "scheduler.pt", "rng_state.pth", "trainer_state.json",
        "tokenizer.json", "tokenizer_config.json", "added_tokens.json", "special_tokens_map.json", "vocab.json",
        "merges.txt", "chat_template.jinja", "adapter_model.bin", "value_head.safetensors"}) {
    tests::write_file(files.dir() / harmless, "x");
  }
  EXPECT_EQ(error_of(files), "");
  for (const char* refused : {"new_embeddings.safetensors", "new_embeddings.bin", "non_lora_trainables.bin"}) {
    tests::write_file(files.dir() / refused, "x");
    EXPECT_THAT(error_of(files), AllOf(HasSubstr(refused), HasSubstr("trained beside the LoRA")));
    std::filesystem::remove(files.dir() / refused);
  }
}

}  // namespace
}  // namespace lorikeet::model
