#include "actors/head/file_stamp.h"

#include <fcntl.h>
#include <gtest/gtest.h>
#include <sys/stat.h>
#include <unistd.h>

#include <filesystem>
#include <fstream>
#include <string>

namespace lorikeet::actors {
namespace {

namespace fs = std::filesystem;

// Two versions of an adapter whose files have the same sizes and times of modification, as reproducible archives and
// container images leave them.
class FileStampTest : public ::testing::Test {
 protected:
  FileStampTest() {
    fs::create_directories(scratch_);
    for (const char* version : {"v1", "v2"}) {
      fs::create_directory(scratch_ / version);
      for (const char* file : kFiles) write(scratch_ / version / file, std::string("content of ") + version);
    }
  }
  ~FileStampTest() override { fs::remove_all(scratch_); }

  static void write(const fs::path& path, const std::string& text) {
    std::ofstream(path) << text;
    set_back(path);
  }

  static void set_back(const fs::path& path) {
    const timespec times[2] = {{1, 0}, {1, 0}};
    ASSERT_EQ(utimensat(AT_FDCWD, path.c_str(), times, 0), 0);
  }

  // The stamp as it is once the files have been left alone for a while.
  static FileStamp conclusive_stamp(const fs::path& dir) {
    FileStamp stamp = stamp_of(dir);
    stamp.conclusive = true;
    return stamp;
  }

  static constexpr const char* kFiles[] = {"adapter_config.json", "adapter_model.safetensors"};
  const fs::path scratch_ = fs::temp_directory_path() / ("lorikeet-stamp-" + std::to_string(getpid()));
};

TEST_F(FileStampTest, ChangesWithTheFiles) {
  const fs::path dir = scratch_ / "empty";
  fs::create_directory(dir);
  const FileStamp none = stamp_of(dir);
  EXPECT_EQ(none, stamp_of(dir));
  EXPECT_EQ(none.tensors.bytes, -1);
  std::ofstream(dir / "adapter_model.safetensors") << "one";
  const FileStamp one = stamp_of(dir);
  EXPECT_NE(one, none);
  std::ofstream(dir / "adapter_model.safetensors") << "longer";
  EXPECT_NE(stamp_of(dir), one);
}

TEST_F(FileStampTest, HoldsForFilesThatAreLeftAlone) {
  const FileStamp stamp = conclusive_stamp(scratch_ / "v1");
  EXPECT_TRUE(stamp.still_holds(stamp_of(scratch_ / "v1")));
  const FileStamp old = stamp_of(fs::path(LORIKEET_SOURCE_DIR) / "examples/models/adapters/kjv");
  EXPECT_TRUE(old.config.regular && old.tensors.regular);
  EXPECT_GT(old.tensors.bytes, 0);
}

TEST_F(FileStampTest, SaysNothingAboutFilesThatWereJustWritten) {
  const FileStamp stamp = stamp_of(scratch_ / "v1");
  EXPECT_FALSE(stamp.conclusive);
  EXPECT_FALSE(stamp.still_holds(stamp_of(scratch_ / "v1"))) << "they may be written again at the same time of change";
}

TEST_F(FileStampTest, IsYoungAroundTheTimeOfChangeByEitherClock) {
  constexpr int64_t kSecond = 1'000'000'000, kChanged = 1'000'000 * kSecond;
  FileStamp stamp;
  for (FileStamp::File* file : {&stamp.config, &stamp.tensors}) {
    file->bytes = 1;
    file->changed_ns = kChanged;
  }
  const auto expect = [&stamp](int64_t now_ns, bool conclusive, bool young) {
    set_age(stamp, now_ns);
    EXPECT_EQ(stamp.conclusive, conclusive) << now_ns - kChanged;
    EXPECT_EQ(stamp.young, young) << now_ns - kChanged;
  };
  expect(kChanged + 2 * kSecond, false, true);
  expect(kChanged + 3 * kSecond, true, false);
  expect(kChanged - 2 * kSecond, false, true);
  expect(kChanged - 3600 * kSecond, false, false);  // the file system's clock is ahead, or ours was set back
  stamp.tensors.changed_ns = kChanged - 10 * kSecond;
  expect(kChanged, false, true);
  stamp.config.bytes = -1;
  expect(kChanged + 3600 * kSecond, false, true);
}

TEST_F(FileStampTest, SaysNothingWhereAFileIsNotThereYet) {
  const FileStamp old = stamp_of(fs::path(LORIKEET_SOURCE_DIR) / "examples/models/adapters");
  EXPECT_TRUE(old.is_missing());
  EXPECT_FALSE(old.conclusive);
}

TEST_F(FileStampTest, ChangesWhenALinkToTheDirectoryIsMoved) {
  const fs::path link = scratch_ / "current";
  fs::create_symlink("v1", link);
  const FileStamp stamp = conclusive_stamp(link);
  EXPECT_TRUE(stamp.still_holds(stamp_of(scratch_ / "v1")));
  fs::create_symlink("v2", scratch_ / "next");
  fs::rename(scratch_ / "next", link);
  EXPECT_FALSE(stamp.still_holds(stamp_of(link)));
}

TEST_F(FileStampTest, ChangesWhenALinkToAFileIsMoved) {
  const fs::path dir = scratch_ / "links";
  fs::create_directory(dir);
  for (const char* file : kFiles) fs::create_symlink(scratch_ / "v1" / file, dir / file);
  for (const char* file : kFiles) {
    const FileStamp stamp = conclusive_stamp(dir);
    fs::remove(dir / file);
    fs::create_symlink(scratch_ / "v2" / file, dir / file);
    EXPECT_FALSE(stamp.still_holds(stamp_of(dir))) << file;
  }
}

TEST_F(FileStampTest, ChangesWhenTheDirectoryIsReplaced) {
  const FileStamp stamp = conclusive_stamp(scratch_ / "v1");
  fs::rename(scratch_ / "v1", scratch_ / "old");
  fs::rename(scratch_ / "v2", scratch_ / "v1");
  EXPECT_FALSE(stamp.still_holds(stamp_of(scratch_ / "v1")));
}

TEST_F(FileStampTest, ChangesWhenOneFileIsReplacedByRenaming) {
  for (const char* file : kFiles) {
    const FileStamp stamp = conclusive_stamp(scratch_ / "v1");
    fs::rename(scratch_ / "v2" / file, scratch_ / "v1" / file);
    EXPECT_FALSE(stamp.still_holds(stamp_of(scratch_ / "v1"))) << file;
  }
}

TEST_F(FileStampTest, ChangesWhenAFileIsWrittenInPlaceAndItsTimeRestored) {
  for (const char* file : kFiles) {
    const fs::path path = scratch_ / "v1" / file;
    const FileStamp stamp = conclusive_stamp(scratch_ / "v1");
    // The kernel's clock of changes ticks now and then; a write within one tick is what `conclusive` is for.
    FileStamp after = stamp;
    while (after.config.changed_ns == stamp.config.changed_ns && after.tensors.changed_ns == stamp.tensors.changed_ns) {
      write(path, "content of v3");
      after = stamp_of(scratch_ / "v1");
    }
    EXPECT_EQ(after.config.modified_ns, stamp.config.modified_ns);
    EXPECT_EQ(after.tensors.modified_ns, stamp.tensors.modified_ns);
    EXPECT_EQ(after.config.bytes, stamp.config.bytes);
    EXPECT_EQ(after.tensors.bytes, stamp.tensors.bytes);
    EXPECT_FALSE(stamp.still_holds(after)) << file;
  }
}

TEST_F(FileStampTest, TellsPipesFromFiles) {
  const fs::path dir = scratch_ / "pipe";
  fs::create_directory(dir);
  ASSERT_EQ(mkfifo((dir / "adapter_config.json").c_str(), 0600), 0);
  const FileStamp stamp = stamp_of(dir);
  EXPECT_FALSE(stamp.config.regular);
  EXPECT_TRUE(stamp.tensors.regular) << "there is none";
}

}  // namespace
}  // namespace lorikeet::actors
