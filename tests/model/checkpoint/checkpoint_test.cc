#include "model/checkpoint/checkpoint.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "tests/model/checkpoint/safetensors_writer.h"

namespace lorikeet::model {
namespace {

using testing::ElementsAre;
using testing::HasSubstr;

class CheckpointTest : public testing::Test {
 protected:
  void add(const std::string& file, std::initializer_list<const char*> tensors) {
    tests::SafetensorsWriter writer;
    for (const char* name : tensors) writer.add(name, "U8", {1}, std::vector<uint8_t>{static_cast<uint8_t>(name[0])});
    writer.write(dir_ / file);
  }
  void index(const std::string& map) {
    tests::write_file(dir_ / "model.safetensors.index.json",
                      R"({"metadata": {"total_size": 2}, "weight_map": )" + map + "}");
  }
  std::string error() {
    const auto checkpoint = Checkpoint::open(dir_.path());
    return checkpoint ? "" : checkpoint.error().message;
  }

  tests::TempDir dir_;
};

TEST_F(CheckpointTest, IsOneFile) {
  add("model.safetensors", {"a", "b"});
  const auto checkpoint = Checkpoint::open(dir_.path());
  ASSERT_TRUE(checkpoint) << checkpoint.error().message;
  EXPECT_THAT(checkpoint->names(), ElementsAre("a", "b"));
  EXPECT_EQ(checkpoint->tensor_bytes(), 2u);
  EXPECT_EQ(checkpoint->read("b")->bytes[0], 'b');
  EXPECT_FALSE(checkpoint->has("c"));
  EXPECT_THAT(checkpoint->require("c").error().message, HasSubstr("no tensor named c"));
}

TEST_F(CheckpointTest, IsOneFileOfAnyName) {
  add("gptq_model-4bit-128g.safetensors", {"a"});
  EXPECT_EQ(error(), "");
  add("other.safetensors", {"a"});
  EXPECT_THAT(error(), HasSubstr("2 safetensors files and no model.safetensors.index.json"));
}

TEST_F(CheckpointTest, IsTheShardsThatTheIndexNames) {
  add("1.safetensors", {"a", "c"});
  add("2.safetensors", {"b"});
  index(R"({"a": "1.safetensors", "b": "2.safetensors", "c": "1.safetensors"})");
  const auto checkpoint = Checkpoint::open(dir_.path());
  ASSERT_TRUE(checkpoint) << checkpoint.error().message;
  EXPECT_THAT(checkpoint->names(), ElementsAre("a", "b", "c"));
  EXPECT_EQ(checkpoint->read("b")->bytes[0], 'b');
}

TEST_F(CheckpointTest, IsACompleteSetOfShardsThatLostItsIndex) {
  add("model-00001-of-00002.safetensors", {"a"});
  add("model-00002-of-00002.safetensors", {"b"});
  EXPECT_EQ(error(), "");
  EXPECT_THAT(Checkpoint::open(dir_.path())->names(), ElementsAre("a", "b"));
  add("model-00002-of-00002.safetensors", {"a"});
  EXPECT_THAT(error(), HasSubstr("tensor a is in both"));
  std::filesystem::rename(dir_ / "model-00002-of-00002.safetensors", dir_ / "model-00003-of-00003.safetensors");
  EXPECT_THAT(error(), HasSubstr("2 safetensors files and no model.safetensors.index.json"));
}

TEST_F(CheckpointTest, MayHaveAnIndexOfAnotherName) {
  add("gptq-00001-of-00002.safetensors", {"a"});
  add("gptq-00002-of-00002.safetensors", {"b"});
  tests::write_file(
      dir_ / "gptq.safetensors.index.json",
      R"({"weight_map": {"a": "gptq-00001-of-00002.safetensors", "c": "gptq-00002-of-00002.safetensors"}})");
  EXPECT_THAT(Checkpoint::open(dir_.path())->names(), ElementsAre("a", "b"));
}

TEST_F(CheckpointTest, IsNotTheIndexThatAToolLeftOver) {
  add("model.safetensors", {"a"});
  index(R"({"b": "model-00001-of-00002.safetensors", "c": "model-00002-of-00002.safetensors"})");
  EXPECT_EQ(error(), "");
  EXPECT_THAT(Checkpoint::open(dir_.path())->names(), ElementsAre("a"));
  add("model-00001-of-00002.safetensors", {"b"});
  EXPECT_THAT(error(), HasSubstr("which of them is the model cannot be told"));
  index(R"({"a": "model.safetensors", "b": "model-00001-of-00002.safetensors"})");
  EXPECT_THAT(Checkpoint::open(dir_.path())->names(), ElementsAre("a", "b"));
}

TEST_F(CheckpointTest, GivesTensorsTheNamesOfACausalModelWhateverWasSaved) {
  struct Case {
    const char *table, *norm, *head;
  };
  for (const Case& c : std::vector<Case>{
           {"model.embed_tokens.weight", "model.layers.0.input_layernorm.weight", "lm_head.weight"},
           {"embed_tokens.weight", "layers.0.input_layernorm.weight", "lm_head.weight"},
           {"model.model.embed_tokens.weight", "model.model.layers.0.input_layernorm.weight", "model.lm_head.weight"},
           {"language_model.model.embed_tokens.weight", "language_model.model.layers.0.input_layernorm.weight",
            "language_model.lm_head.weight"},
           {"model.language_model.embed_tokens.weight", "model.language_model.layers.0.input_layernorm.weight",
            "lm_head.weight"},
           {"_orig_mod.model.embed_tokens.weight", "_orig_mod.model.layers.0.input_layernorm.weight",
            "_orig_mod.lm_head.weight"}}) {
    add("model.safetensors", {c.table, c.norm, c.head});
    EXPECT_THAT(Checkpoint::open(dir_.path())->names(),
                ElementsAre("lm_head.weight", "model.embed_tokens.weight", "model.layers.0.input_layernorm.weight"))
        << c.table;
  }
  add("model.safetensors", {"wte.weight", "h.0.ln_1.weight"});
  EXPECT_THAT(Checkpoint::open(dir_.path())->names(),
              ElementsAre("transformer.h.0.ln_1.weight", "transformer.wte.weight"));
  // Two towers, or names of something else, stay as they are.
  add("model.safetensors", {"a.embed_tokens.weight", "b.embed_tokens.weight", "layers.0.x"});
  EXPECT_THAT(Checkpoint::open(dir_.path())->names(),
              ElementsAre("a.embed_tokens.weight", "b.embed_tokens.weight", "layers.0.x"));
  add("model.safetensors", {"embed_tokens.weight", "lm_head.weight", "model.lm_head.weight"});
  EXPECT_THAT(error(), HasSubstr("the tensors lm_head.weight and model.lm_head.weight are for one place"));
}

TEST_F(CheckpointTest, IsWhatTheShardsHoldThatTheIndexNames) {
  add("1.safetensors", {"a", "c"});
  add("2.safetensors", {"b"});
  for (const char* text : {R"({"a": "1.safetensors", "b": "2.safetensors"})",
                           R"({"a": "2.safetensors", "b": "1.safetensors", "c": "1.safetensors"})",
                           R"({"a": "1.safetensors", "b": "2.safetensors", "nobody's": "1.safetensors"})"}) {
    index(text);
    EXPECT_THAT(Checkpoint::open(dir_.path())->names(), ElementsAre("a", "b", "c")) << text;
  }
  index(R"({"a": "1.safetensors"})");
  EXPECT_THAT(Checkpoint::open(dir_.path())->names(), ElementsAre("a", "c"));
  EXPECT_THAT(Checkpoint::open(dir_.path())->require("b").error().message, HasSubstr("no tensor named b"));
}

TEST_F(CheckpointTest, IsRefusedWhenAShardIsMissingOrTwoHoldATensor) {
  add("1.safetensors", {"a", "c"});
  index(R"({"a": "1.safetensors", "b": "2.safetensors", "c": "1.safetensors", "d": "3.safetensors"})");
  EXPECT_THAT(error(), HasSubstr("2.safetensors: No such file"));
  add("2.safetensors", {"b", "a"});
  index(R"({"a": "1.safetensors", "b": "2.safetensors", "c": "1.safetensors"})");
  EXPECT_THAT(error(), HasSubstr("tensor a is in both 1.safetensors and 2.safetensors"));
}

TEST_F(CheckpointTest, IsRefusedWhenTheIndexLeadsOutOfTheDirectory) {
  for (const char* name : {"../1.safetensors", "/etc/passwd", "..", ".", "", "a/b", "a\\\\b", "a\\u0000b"}) {
    index(std::string(R"({"a": ")") + name + "\"}");
    EXPECT_THAT(error(), HasSubstr("is not the plain name of a file beside the index")) << name;
  }
}

TEST_F(CheckpointTest, IsRefusedWhenTheIndexIsMalformed) {
  index("[]");
  EXPECT_THAT(error(), HasSubstr("weight_map is missing or not an object"));
  index("{}");
  EXPECT_THAT(error(), HasSubstr("weight_map is empty"));
  index(R"({"a": 1})");
  EXPECT_THAT(error(), HasSubstr("the file of a is not a string"));
  index(R"({"a": "1.safetensors", "a": "2.safetensors"})");
  EXPECT_THAT(error(), HasSubstr("the key \"a\" occurs twice"));
  tests::write_file(dir_ / "model.safetensors.index.json", "{");
  EXPECT_THAT(error(), HasSubstr("not valid JSON"));
}

TEST_F(CheckpointTest, IsRefusedWhenThereAreNoWeightsOrPickledOnes) {
  EXPECT_THAT(error(), HasSubstr("no model.safetensors and no model.safetensors.index.json"));
  tests::write_file(dir_ / "model-q4_k_m.gguf", "x");
  EXPECT_THAT(error(), HasSubstr("only GGUF, which is not served"));
  tests::write_file(dir_ / "pytorch_model.bin", "x");
  EXPECT_THAT(error(), HasSubstr("only pickled weights"));
}

}  // namespace
}  // namespace lorikeet::model
