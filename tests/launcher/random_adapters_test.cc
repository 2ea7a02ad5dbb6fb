#include "launcher/random_adapters.h"

#include <gtest/gtest.h>

#include "model/inspect/inspect.h"
#include "tests/launcher/process.h"

namespace lorikeet::launcher {
namespace {

using tests::source_path;
using tests::TempDir;

// One of each architecture; the last has q, k and v in one module.
class RandomAdapters : public testing::TestWithParam<const char*> {};

TEST_P(RandomAdapters, AreServedOverTheirModel) {
  const auto config = model::read_model_config(source_path(GetParam())).value();
  TempDir scratch;
  ASSERT_TRUE(write_random_adapter(scratch / "a", config, 4, 1).has_value());
  const model::AdapterReport report = model::inspect_adapter(scratch / "a", config);
  EXPECT_FALSE(report.refusal.has_value()) << *report.refusal;
  EXPECT_TRUE(report.strange_tensors.empty());
  EXPECT_TRUE(report.targets_without_tensors.empty());
  ASSERT_FALSE(report.modules.empty());
  for (const model::AdapterModuleReport& module : report.modules) {
    EXPECT_TRUE(module.matched) << module.module;
    EXPECT_EQ(module.rank, 4) << module.module;
  }
}

INSTANTIATE_TEST_SUITE_P(Architectures, RandomAdapters,
                         testing::Values("examples/models/tiny-qwen2-gptq-int4", "tests/data/formats/qwen3-gptq",
                                         "tests/data/formats/qwen-v1-gptq"));

TEST(RandomAdaptersOfOneModel, DifferInContentWithTheSeed) {
  const auto config = model::read_model_config(source_path("examples/models/tiny-qwen2-gptq-int4")).value();
  TempDir scratch;
  for (const auto& [name, seed] : {std::pair{"a", 1}, std::pair{"b", 2}, std::pair{"again", 1}}) {
    ASSERT_TRUE(write_random_adapter(scratch / name, config, 2, static_cast<uint64_t>(seed)).has_value());
  }
  const std::string a = model::inspect_adapter(scratch / "a", config).digest;
  EXPECT_NE(a, model::inspect_adapter(scratch / "b", config).digest);
  EXPECT_EQ(a, model::inspect_adapter(scratch / "again", config).digest);
}

TEST(RandomAdaptersOfOneModel, AreTheSameWhetherMadeOneByOneOrTogether) {
  const auto config = model::read_model_config(source_path("examples/models/tiny-qwen2-gptq-int4")).value();
  TempDir scratch;
  ASSERT_TRUE(write_random_adapters(scratch / "all", 3, config, 2, {"q_proj"}));
  for (const int32_t seed : {0, 1, 2}) {
    const std::string name = std::to_string(seed);
    ASSERT_TRUE(write_random_adapter(scratch / name, config, 2, static_cast<uint64_t>(seed), {"q_proj"}));
    EXPECT_EQ(model::inspect_adapter(scratch / "all" / name, config).digest,
              model::inspect_adapter(scratch / name, config).digest);
  }
  tests::write_file(scratch / "file", "");
  EXPECT_FALSE(write_random_adapters(scratch / "file", 3, config, 2));
}

TEST(RandomAdaptersOfOneModel, AreForTheLayersThatWereAskedFor) {
  const auto config = model::read_model_config(source_path("examples/models/tiny-qwen2-gptq-int4")).value();
  TempDir scratch;
  ASSERT_TRUE(write_random_adapter(scratch / "a", config, 2, 1, {"q_proj", "v_proj"}));
  const auto found = model::inspect_adapter(scratch / "a", config);
  ASSERT_FALSE(found.modules.empty());
  for (const auto& module : found.modules) {
    EXPECT_TRUE(module.module.ends_with("q_proj") || module.module.ends_with("v_proj")) << module.module;
  }
  EXPECT_LT(random_adapter_bytes(config, 2, {"q_proj", "v_proj"}), random_adapter_bytes(config, 2));
  const auto refused = write_random_adapter(scratch / "b", config, 2, 1, {"x_proj"});
  ASSERT_FALSE(refused);
  EXPECT_EQ(refused.error().message, "the model has no linear layer x_proj");
}

TEST(RandomAdaptersOfOneModel, AreRefusedWhereTheyCannotBeWritten) {
  const auto config = model::read_model_config(source_path("examples/models/tiny-qwen2-gptq-int4")).value();
  TempDir scratch;
  tests::write_file(scratch / "file", "");
  const auto written = write_random_adapter(scratch / "file" / "a", config, 2, 1);
  ASSERT_FALSE(written.has_value());
  EXPECT_NE(written.error().message.find((scratch / "file" / "a").string()), std::string::npos);
}

}  // namespace
}  // namespace lorikeet::launcher
