#include "actors/head/adapter_reader.h"

#include <gtest/gtest.h>
#include <sys/stat.h>
#include <unistd.h>

#include <atomic>
#include <chrono>
#include <deque>
#include <filesystem>
#include <fstream>
#include <future>
#include <memory>
#include <set>
#include <thread>

#include "actors/head/adapter_key.h"
#include "tests/temp_dir.h"

namespace lorikeet::actors {
namespace {

class AdapterReaderTest : public ::testing::Test {
 protected:
  void make(const std::string& hooks) {
    const auto config = model::read_model_config(models_ / "tiny-qwen2-gptq-int4").value();
    reader_ = std::make_unique<AdapterReader>(
        model::ShardPlan::make(config, 2).value(), 512, TestHooks(hooks),
        AdapterReader::Callbacks{[this](AdapterReader::Checked found) {
                                   push("checked " + found.name + (found.error.empty() ? "" : ": " + found.error));
                                 },
                                 [this](AdapterReader::Staged found) {
                                   if (!found.adapter) error_ = found.adapter.error().message;
                                   young_ = found.stamp.young;
                                   if (found.adapter) digest_ = (*found.adapter)->digest;
                                   if (found.adapter) staged_ = *found.adapter;
                                   push((found.adapter ? "staged " : "failed ") + found.name);
                                 },
                                 [this](AdapterReader::Located found) {
                                   push(found.directory ? "at " + *found.directory : found.directory.error().code);
                                 }},
        AdapterReader::Patience(), AdapterDirectories({(models_ / "adapters").string(), dir_.path().string()}));
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

  tests::TempDir dir_;
  std::string adapter(const std::string& name) { return (models_ / "adapters" / name).string(); }

  const std::filesystem::path models_ = std::filesystem::path(LORIKEET_SOURCE_DIR) / "examples/models";
  std::string error_, digest_;  // of the last reading, before its line
  std::shared_ptr<const StagedAdapter> staged_;
  bool young_ = false;  // of what was read then
  std::mutex mutex_;
  std::condition_variable wake_;
  std::deque<std::string> lines_;
  std::unique_ptr<AdapterReader> reader_;
};

TEST_F(AdapterReaderTest, ReadsWhatClientsLoadFromBelowItsDirectoriesAlone) {
  make("");
  const std::string key = loaded_key("kjv", 1);
  reader_->locate(key, "kjv");
  EXPECT_EQ(next(), "at " + std::filesystem::canonical(adapter("kjv")).string());
  reader_->locate(key, "/etc");
  EXPECT_EQ(next(), "forbidden");
  std::filesystem::create_directory_symlink(adapter("kjv"), dir_ / "link");
  reader_->read(key, (dir_ / "link").string(), 0);
  EXPECT_EQ(next(), "staged " + key);
  // A link that is moved once a client has named it.
  std::filesystem::remove(dir_ / "link");
  std::filesystem::create_directory_symlink(models_ / "tiny-qwen2-gptq-int4", dir_ / "link");
  reader_->read(key, (dir_ / "link").string(), 0);
  EXPECT_EQ(next(), "failed " + key);
  EXPECT_NE(error_.find("is not below"), std::string::npos) << error_;
  // Nor does a look say what is missing elsewhere.
  for (const char* there : {"/", "/none"}) {
    std::filesystem::remove(dir_ / "link");
    std::filesystem::create_directory_symlink(there, dir_ / "link");
    reader_->check(key, (dir_ / "link").string());
    const std::string line = next();
    EXPECT_NE(line.find("is not below"), std::string::npos) << line;
  }
  reader_->check("kjv", "/none");  // the operator's own
  EXPECT_EQ(next(), "checked kjv");
}

TEST_F(AdapterReaderTest, GivesMemoryBackThatNobodyHoldsAnyMoreThoughTheReaderIsGone) {
  for (const bool reader_is_gone : {false, true}) {
    make("");
    reader_->read("moby", adapter("moby"), 0);
    ASSERT_EQ(next(), "staged moby") << error_;
    ASSERT_NE(staged_->memory(), nullptr);
    const std::string path = "/proc/self/fd/" + std::to_string(staged_->memory()->get());
    struct stat held {};
    ASSERT_EQ(stat(path.c_str(), &held), 0);
    const auto is_held = [&] {  // its number may have become another file's
      struct stat present {};
      return stat(path.c_str(), &present) == 0 && present.st_ino == held.st_ino;
    };
    if (reader_is_gone) reader_.reset();
    EXPECT_TRUE(is_held());
    staged_.reset();
    const auto deadline = std::chrono::steady_clock::now() + std::chrono::seconds(30);
    while (is_held() && std::chrono::steady_clock::now() < deadline) std::this_thread::yield();
    EXPECT_FALSE(is_held());
  }
}

// Directories, devices and files elsewhere, and nothing there, are answered alike, and none as written just now.
TEST_F(AdapterReaderTest, SaysOfAFileThatIsALinkOutOfItsDirectoriesThatItIsOne) {
  namespace fs = std::filesystem;
  make("");
  const std::string key = loaded_key("kjv", 1);
  const fs::path link = dir_ / "kjv/adapter_config.json";
  fs::create_directory(dir_ / "kjv");
  fs::copy_file(adapter("kjv") + "/adapter_model.safetensors", dir_ / "kjv/adapter_model.safetensors");
  for (const char* there : {"/etc", "/dev/null", "/none", "/etc/passwd"}) {
    fs::remove(link);
    fs::create_symlink(there, link);
    reader_->read(key, (dir_ / "kjv").string(), 0);
    EXPECT_EQ(next(), "failed " + key);
    EXPECT_NE(error_.find("adapter_config.json leads to a file that is not below"), std::string::npos) << error_;
    EXPECT_FALSE(young_) << there;
  }
}

// Whoever may write below the directory turns a link back and forth: what is read is what lies below, or nothing.
TEST_F(AdapterReaderTest, ReadsNothingFromOutsideWhileALinkIsTurnedBackAndForth) {
  namespace fs = std::filesystem;
  make("");
  const fs::path work = fs::temp_directory_path() / ("lorikeet-turned-" + std::to_string(getpid()));
  const fs::path secret = work / "secret", turned = dir_ / "turned", next_link = dir_ / "turned.next";
  fs::create_directories(secret);
  fs::create_directory(turned);
  for (const char* file : {"adapter_config.json", "adapter_model.safetensors"}) {
    fs::copy_file(fs::path(adapter("moby")) / file, secret / file);
  }
  fs::copy_file(fs::path(adapter("kjv")) / "adapter_config.json", turned / "adapter_config.json");
  const std::string inside = fs::canonical(fs::path(adapter("kjv")) / "adapter_model.safetensors").string();
  const fs::path link = turned / "adapter_model.safetensors";
  fs::create_symlink(inside, link);
  const std::string key = loaded_key("turned", 1);
  reader_->read(key, turned.string(), 0);
  ASSERT_EQ(next(), "staged " + key) << error_;
  const std::string digest = digest_;

  std::atomic<bool> stop{false};
  std::thread turner([&] {
    for (size_t i = 0; !stop; ++i) {
      fs::create_symlink(i % 2 == 0 ? (secret / "adapter_model.safetensors").string() : inside, next_link);
      fs::rename(next_link, link);
    }
  });
  for (int i = 0; i < 40; ++i) {
    reader_->read(key, turned.string(), 0);
    if (next() == "staged " + key) {
      EXPECT_EQ(digest_, digest);
    }
  }
  stop = true;
  turner.join();
  fs::remove(link);
  fs::create_symlink(secret / "adapter_model.safetensors", link);
  reader_->read(key, turned.string(), 0);
  EXPECT_EQ(next(), "failed " + key);
  EXPECT_NE(error_.find("leads to a file that is not below"), std::string::npos) << error_;
  fs::remove_all(work);
}

TEST_F(AdapterReaderTest, ReadsAndChecksOnItsThreads) {
  make("");
  reader_->check("kjv", adapter("kjv"));
  EXPECT_EQ(next(), "checked kjv");
  reader_->read("kjv", adapter("kjv"), 0);
  EXPECT_EQ(next(), "staged kjv");
  reader_->read("none", "/nowhere", 0);
  EXPECT_EQ(next(), "failed none");
  reader_->run([this] { push("ran"); });
  EXPECT_EQ(next(), "ran");
}

TEST_F(AdapterReaderTest, ReadsOthersWhileOneIsHeldUp) {
  const auto release = std::filesystem::temp_directory_path() / ("lorikeet-release-" + std::to_string(getpid()));
  std::filesystem::remove(release);
  make("hold_adapter_load=kjv,release_file=" + release.string());
  reader_->read("kjv", adapter("kjv"), 0);
  reader_->read("moby", adapter("moby"), 0);
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
  reader_->read("kjv", adapter("kjv"), 0);
  std::promise<void> begun;  // jobs begin in their order, so the read has begun when the one behind it has
  reader_->run([&] { begun.set_value(); });
  begun.get_future().wait();
  reader_.reset();
  EXPECT_EQ(next(), "staged kjv");
}

// Files that are looked at and read on a disk that does not answer.
class HungDisk : public AdapterReaderTest {
 protected:
  HungDisk() { std::filesystem::remove(release_); }
  ~HungDisk() override {
    std::ofstream(release_) << "go";
    while (!reader_->left_behind().empty()) std::this_thread::yield();
    reader_.reset();
    std::filesystem::remove(release_);
  }

  static constexpr std::chrono::hours kLater{1};
  const std::filesystem::path release_ =
      std::filesystem::temp_directory_path() / ("lorikeet-release-" + std::to_string(getpid()));
};

TEST_F(HungDisk, HoldsUpOnlyItsOwnAdapterAndThatNotForEver) {
  make("hold_adapter_check=kjv,release_file=" + release_.string());
  reader_->check("kjv", adapter("kjv"));
  reader_->check("moby", adapter("moby"));
  EXPECT_EQ(next(), "checked moby");
  std::string line;
  while (line.empty()) {  // until its look has begun
    reader_->tick(std::chrono::steady_clock::now() + kLater);
    if (!reader_->left_behind().empty()) line = next();
  }
  EXPECT_EQ(line, "checked kjv: " + adapter("kjv") +
                      ": looking at the adapter's files: it has not returned in 15 s; its thread is left behind");
  EXPECT_EQ(reader_->left_behind(), std::vector<std::string>{"kjv"});
  reader_->check("kjv", adapter("kjv"));
  EXPECT_NE(next().find("an earlier attempt has not returned for"), std::string::npos);
  reader_->check("moby", adapter("moby"));
  EXPECT_EQ(next(), "checked moby");
  std::ofstream(release_) << "go";
  for (line.clear(); line != "checked kjv"; line = next()) reader_->check("kjv", adapter("kjv"));
}

TEST_F(HungDisk, GivesUpAReadingThatDoesNotEnd) {
  make("hold_adapter_load=kjv,release_file=" + release_.string());
  reader_->read("kjv", adapter("kjv"), 200'000'000);
  while (reader_->left_behind().empty()) reader_->tick(std::chrono::steady_clock::now() + kLater);
  EXPECT_EQ(next(), "failed kjv");
  EXPECT_EQ(error_, adapter("kjv") + ": reading the adapter: it has not returned in 40 s; its thread is left behind");
  reader_->read("moby", adapter("moby"), 0);
  EXPECT_EQ(next(), "staged moby");
}

TEST_F(AdapterReaderTest, ReadsTheVersionThatALinkNames) {
  make("");
  const auto link = std::filesystem::temp_directory_path() / ("lorikeet-link-" + std::to_string(getpid()));
  std::string digests[2];
  for (int i : {0, 1}) {
    std::filesystem::remove(link);
    std::filesystem::create_directory_symlink(adapter(i == 0 ? "kjv" : "moby"), link);
    reader_->read("current", link.string(), 0);
    EXPECT_EQ(next(), "staged current");
    digests[i] = digest_;
  }
  std::filesystem::remove(link);
  EXPECT_NE(digests[0], digests[1]);
}

TEST_F(AdapterReaderTest, RefusesFilesThatAreNone) {
  make("");
  const auto dir = std::filesystem::temp_directory_path() / ("lorikeet-pipe-" + std::to_string(getpid()));
  std::filesystem::create_directory(dir);
  ASSERT_EQ(mkfifo((dir / "adapter_config.json").c_str(), 0600), 0);
  reader_->read("pipe", dir.string(), 0);
  EXPECT_EQ(next(), "failed pipe");
  EXPECT_EQ(error_, dir.string() + ": the adapter's files are not regular files");
  std::filesystem::remove_all(dir);
}

}  // namespace
}  // namespace lorikeet::actors
