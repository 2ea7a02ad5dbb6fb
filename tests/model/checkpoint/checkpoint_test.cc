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
  EXPECT_EQ(checkpoint->find("b")->bytes[0], 'b');
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
  EXPECT_EQ(checkpoint->find("b")->bytes[0], 'b');
}

TEST_F(CheckpointTest, IsRefusedWhenIndexAndShardsDisagree) {
  add("1.safetensors", {"a", "c"});
  add("2.safetensors", {"b"});
  index(R"({"a": "1.safetensors", "b": "2.safetensors"})");
  EXPECT_THAT(error(), HasSubstr("1.safetensors holds c, which the index does not name"));
  index(R"({"a": "1.safetensors", "b": "1.safetensors", "c": "1.safetensors"})");
  EXPECT_THAT(error(), HasSubstr("the index says that 1.safetensors holds b, which it does not"));
  index(R"({"a": "1.safetensors", "b": "2.safetensors", "c": "1.safetensors", "d": "3.safetensors"})");
  EXPECT_THAT(error(), HasSubstr("3.safetensors: No such file"));
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
  tests::write_file(dir_ / "pytorch_model.bin", "x");
  EXPECT_THAT(error(), HasSubstr("only pickled weights"));
}

}  // namespace
}  // namespace lorikeet::model
