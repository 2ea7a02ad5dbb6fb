#include "actors/head/adapter_reader.h"

#include <gtest/gtest.h>
#include <unistd.h>

#include <deque>
#include <filesystem>
#include <fstream>
#include <future>
#include <set>

namespace lorikeet::actors {
namespace {

class AdapterReaderTest : public ::testing::Test {
 protected:
  void make(const std::string& hooks) {
    const auto config = model::read_model_config(models_ / "tiny-qwen2-gptq-int4").value();
    reader_ = std::make_unique<AdapterReader>(
        model::ShardPlan::make(config, 2).value(), 512, TestHooks(hooks),
        AdapterReader::Callbacks{
            [this](AdapterReader::Checked found) { push("checked " + found.name); },
            [this](AdapterReader::Staged found) { push((found.adapter ? "staged " : "failed ") + found.name); }});
  }

  void push(std::string line) {
    {
      const std::lock_guard lock(mutex_);
      lines_.push_back(std::move(line));
    }
    wake_.notify_one();
  }

  std::string next() {
    std::unique_lock lock(mutex_);
    wake_.wait(lock, [this] { return !lines_.empty(); });
    std::string line = lines_.front();
    lines_.pop_front();
    return line;
  }

  std::string adapter(const std::string& name) { return (models_ / "adapters" / name).string(); }

  const std::filesystem::path models_ = std::filesystem::path(LORIKEET_SOURCE_DIR) / "examples/models";
  std::mutex mutex_;
  std::condition_variable wake_;
  std::deque<std::string> lines_;
  std::unique_ptr<AdapterReader> reader_;
};

TEST_F(AdapterReaderTest, ReadsAndChecksOnItsThreads) {
  make("");
  reader_->check("kjv", adapter("kjv"));
  EXPECT_EQ(next(), "checked kjv");
  reader_->read("kjv", adapter("kjv"));
  EXPECT_EQ(next(), "staged kjv");
  reader_->read("none", "/nowhere");
  EXPECT_EQ(next(), "failed none");
  reader_->run([this] { push("ran"); });
  EXPECT_EQ(next(), "ran");
}

TEST_F(AdapterReaderTest, ReadsOthersWhileOneIsHeldUp) {
  const auto release = std::filesystem::temp_directory_path() / ("lorikeet-release-" + std::to_string(getpid()));
  std::filesystem::remove(release);
  make("hold_adapter_load=kjv,release_file=" + release.string());
  reader_->read("kjv", adapter("kjv"));
  reader_->read("moby", adapter("moby"));
  reader_->check("kjv", adapter("kjv"));
  std::set<std::string> others = {next(), next()};
  EXPECT_TRUE(others.contains("staged moby"));
  EXPECT_TRUE(others.contains("checked kjv"));
  std::ofstream(release) << "go";
  EXPECT_EQ(next(), "staged kjv");
  std::filesystem::remove(release);
}

TEST_F(AdapterReaderTest, EndsWhileAReadIsHeldUp) {
  make("hold_adapter_load=kjv,release_file=/nowhere/at/all");
  reader_->read("kjv", adapter("kjv"));
  std::promise<void> begun;  // jobs begin in their order, so the read has begun when the one behind it has
  reader_->run([&] { begun.set_value(); });
  begun.get_future().wait();
  reader_.reset();
  EXPECT_EQ(next(), "staged kjv");
}

}  // namespace
}  // namespace lorikeet::actors
