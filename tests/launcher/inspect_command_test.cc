// `lorikeet inspect` as a person runs it.
#include <gtest/gtest.h>

#include <nlohmann/json.hpp>

#include "tests/launcher/process.h"

namespace lorikeet::tests {
namespace {

const std::string kModel = source_path("examples/models/tiny-qwen2-gptq-int4").string();
const std::string kAdapter = source_path("examples/models/adapters/kjv").string();

TEST(Inspect, DescribesACheckpointAsJson) {
  const Finished run = run_lorikeet({"inspect", kModel, "--json"});
  ASSERT_EQ(run.status, 0) << run.err;
  const auto report = nlohmann::json::parse(run.out);
  EXPECT_NE(run.out.find("gptq"), std::string::npos);
  EXPECT_TRUE(report.is_object());
}

TEST(Inspect, JudgesAnAdapterAgainstItsBase) {
  const Finished run = run_lorikeet({"inspect", kAdapter, "--base", kModel});
  EXPECT_EQ(run.status, 0) << run.out << run.err;
  EXPECT_NE(run.out.find("self_attn.q_proj"), std::string::npos) << run.out;
}

TEST(Inspect, FailsForAnAdapterOfAnotherBase) {
  const std::string other = source_path("tests/data/formats/qwen2.5-awq/adapters/all-r8").string();
  const Finished run = run_lorikeet({"inspect", other, "--base", kModel});
  EXPECT_EQ(run.status, 1) << run.out;
}

TEST(Inspect, FailsWithASentenceForWhatIsNoCheckpoint) {
  TempDir scratch;
  const Finished run = run_lorikeet({"inspect", scratch.path().string()});
  EXPECT_EQ(run.status, 1);
  EXPECT_NE((run.out + run.err).find("config.json"), std::string::npos) << run.out << run.err;
}

TEST(Inspect, SaysWhatLiesBelowAFolderThatIsNeither) {
  const std::string models = source_path("examples/models").string();
  const Finished run = run_lorikeet({"inspect", models});
  EXPECT_EQ(run.status, 1);
  EXPECT_EQ(run.err, "lorikeet inspect: " + models +
                         ": neither a checkpoint (config.json) nor an adapter (adapter_config.json); below it are " +
                         kModel + "\n");
  EXPECT_EQ(run_lorikeet({"inspect", "/dev/null"}).err,
            "lorikeet inspect: /dev/null: it is no directory; give the one that holds config.json or "
            "adapter_config.json\n");
  EXPECT_EQ(run_lorikeet({"inspect", "/no/such"}).err,
            "lorikeet inspect: /no/such: there is no such file or directory\n");
}

}  // namespace
}  // namespace lorikeet::tests
