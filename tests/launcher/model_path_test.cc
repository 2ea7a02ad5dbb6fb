#include "launcher/model_path.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "tests/launcher/process.h"

namespace lorikeet::launcher {
namespace {

namespace fs = std::filesystem;
using tests::TempDir;
using tests::write_file;

TEST(FindModel, TakesADirectoryAsItIs) {
  const TempDir scratch;
  EXPECT_EQ(find_model(scratch.path().string(), {}).value(), scratch.path().string());
}

TEST(FindModel, FindsTheSnapshotThatTheHubsCacheNames) {
  const TempDir scratch;
  const fs::path model = scratch / "models--Qwen--Qwen2.5-14B-Instruct-GPTQ-Int4";
  fs::create_directories(model / "refs");
  fs::create_directories(model / "snapshots" / "abc123");
  write_file(model / "refs" / "main", "abc123");
  const auto found = find_model("Qwen/Qwen2.5-14B-Instruct-GPTQ-Int4", {scratch / "elsewhere", scratch.path()});
  EXPECT_EQ(found.value(), (model / "snapshots" / "abc123").string());
}

TEST(FindModel, SaysHowToDownloadWhatIsNotThere) {
  const TempDir scratch;
  EXPECT_THAT(find_model("Qwen/Qwen2.5-14B", {scratch.path()}).error().message,
              testing::HasSubstr("`hf download Qwen/Qwen2.5-14B`"));
}

TEST(FindModel, DoesNotTakeAPathForTheNameOfARepository) {
  for (const char* path : {"/no/such/dir", "./no/such", "no_such_dir", "../x/y"}) {
    EXPECT_EQ(find_model(path, {}).error().message, std::string("there is no directory ") + path);
  }
}

TEST(FindModel, RefusesAFile) {
  const TempDir scratch;
  write_file(scratch / "model.safetensors", "x");
  EXPECT_THAT(find_model((scratch / "model.safetensors").string(), {}).error().message,
              testing::HasSubstr("is not a directory: give the folder that holds config.json"));
}

}  // namespace
}  // namespace lorikeet::launcher
