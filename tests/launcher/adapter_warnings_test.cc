#include "launcher/adapter_warnings.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <filesystem>
#include <future>

#include "tests/launcher/process.h"
#include "tests/model/checkpoint/safetensors_writer.h"

namespace lorikeet::launcher {
namespace {

namespace fs = std::filesystem;
using testing::AllOf;
using testing::ElementsAre;
using testing::HasSubstr;
using testing::StartsWith;

constexpr std::chrono::hours kLong{1};

class AdapterWarnings : public testing::Test {
 protected:
  AdapterWarnings() {
    options_.model = tests::source_path("examples/models/tiny-qwen2-gptq-int4").string();
    options_.device = "cpu";
  }
  void add(const std::string& name, const fs::path& dir) { options_.lora_modules.emplace_back(name, dir.string()); }
  // One of the examples, whose tensors may be replaced.
  fs::path copy(const std::string& name) {
    fs::create_directory(scratch_ / name);
    for (const char* file : {"adapter_config.json", "adapter_model.safetensors"}) {
      fs::copy_file(fs::path(adapter_) / file, scratch_ / name / file);
    }
    return scratch_ / name;
  }

  tests::TempDir scratch_;
  const std::string adapter_ = tests::source_path("examples/models/adapters/kjv").string();
  actors::ServerOptions options_;
};

TEST_F(AdapterWarnings, NameAdaptersThatWouldBeRefused) {
  fs::create_directory(scratch_ / "empty");
  add("good", adapter_);
  add("empty", scratch_ / "empty");
  add("torn", copy("torn"));
  fs::resize_file(scratch_ / "torn/adapter_model.safetensors", 1000);
  add("other", tests::source_path("tests/data/formats/qwen2.5-awq/adapters/all-r8"));
  EXPECT_THAT(
      adapter_warnings(options_, kLong).warnings,
      ElementsAre(StartsWith("adapter empty: there is no "), StartsWith("adapter torn: "),
                  AllOf(StartsWith("adapter other: "), HasSubstr("; requests for it will fail until that is mended"))));
  auto bounded = options_;
  bounded.max_lora_rank = 1;
  EXPECT_THAT(adapter_warnings(bounded, kLong).warnings[0],
              AllOf(StartsWith("adapter good: "), HasSubstr("at most 1 is served (--max-lora-rank)")));
  for (const uint64_t bytes : {0, 1024}) {
    bounded = options_;
    bounded.max_cpu_lora_bytes = bytes;
    EXPECT_THAT(adapter_warnings(bounded, kLong).warnings[0],
                AllOf(StartsWith("adapter good: it takes "), HasSubstr("--max-cpu-lora-bytes allows ")));
  }
  EXPECT_THAT(adapter_warnings(options_, std::chrono::milliseconds(0)).warnings,
              ElementsAre("4 adapters were not looked at before the start"));
}

TEST_F(AdapterWarnings, SayNothingOfAModelThatCannotBeReadOrWhereThereAreNone) {
  EXPECT_THAT(adapter_warnings(options_, kLong).warnings, ElementsAre());
  add("empty", scratch_.path());
  options_.model = "/none";
  EXPECT_THAT(adapter_warnings(options_, kLong).warnings, ElementsAre());
}

TEST_F(AdapterWarnings, NameTenAndCountTheRest) {
  for (int i = 0; i < 12; ++i) add(std::to_string(i), "none");
  const auto refuse = [](const std::string&) { return std::string("broken"); };
  const RefusedAdapters refused = adapter_warnings(options_, kLong, refuse);
  ASSERT_EQ(refused.warnings.size(), 11U);
  EXPECT_THAT(refused.warnings[9], StartsWith("adapter 9: broken"));
  EXPECT_EQ(refused.warnings[10], "2 adapters more would be refused: `lorikeet inspect DIR --base MODEL` says why");
  EXPECT_EQ(refused.names.size(), 12U);
}

TEST_F(AdapterWarnings, BlameTheRankOnlyWhereItIsTheRank) {
  add("evil", copy("evil"));
  tests::SafetensorsWriter tensors;
  tensors.add("x has rank 8, at most 4 is served", "F32", {1}, std::vector<float>{1});
  tests::write_file(scratch_ / "evil/adapter_model.safetensors", tensors.image());
  options_.max_lora_rank = 4;
  EXPECT_THAT(adapter_warnings(options_, kLong).warnings[0], testing::Not(HasSubstr("--max-lora-rank")));
}

TEST_F(AdapterWarnings, AreLinesWhateverAnAdapterHolds) {
  add("evil", copy("evil"));
  tests::SafetensorsWriter tensors;
  tensors.add(R"(x\n{\"event\":\"forged\"}\n\u001b[2J)", "F32", {1}, std::vector<float>{1});
  tests::write_file(scratch_ / "evil/adapter_model.safetensors", tensors.image());
  EXPECT_THAT(adapter_warnings(options_, kLong).warnings, ElementsAre(HasSubstr("x?{\"event\":\"forged\"}??[2J")));
  const auto look = [](const std::string&) { return std::string("a\nb\x1b"); };
  EXPECT_THAT(adapter_warnings(options_, kLong, look).warnings,
              ElementsAre(StartsWith("adapter evil: a?b?; requests")));
}

TEST_F(AdapterWarnings, DoNotWaitForADiskThatDoesNotAnswer) {
  for (const char* name : {"a", "b", "c"}) add(name, name);
  std::promise<void> release;
  const auto look = [released = release.get_future().share(), looks = 0](const std::string&) mutable {
    if (++looks == 2) released.wait();
    return "broken";
  };
  const auto said = adapter_warnings(options_, std::chrono::milliseconds(200), look).warnings;
  release.set_value();
  // A machine that has not come to the second one in that time says less of what it has looked at.
  EXPECT_THAT(said,
              testing::AnyOf(
                  ElementsAre(StartsWith("adapter a: broken"), "adapter b: its files do not answer",
                              "1 adapter was not looked at before the start"),
                  ElementsAre(StartsWith("adapter a: broken"), "2 adapters were not looked at before the start"),
                  ElementsAre("adapter a: its files do not answer", "2 adapters were not looked at before the start"),
                  ElementsAre("3 adapters were not looked at before the start")));
}

}  // namespace
}  // namespace lorikeet::launcher
