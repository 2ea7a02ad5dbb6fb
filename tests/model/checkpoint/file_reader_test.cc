#include "model/checkpoint/file_reader.h"

#include <fcntl.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <sys/stat.h>

#include <chrono>
#include <csignal>
#include <future>
#include <thread>
#include <vector>

#include "kernels/base/descriptor.h"
#include "tests/temp_dir.h"

namespace lorikeet::model {
namespace {

using testing::AllOf;
using testing::ElementsAre;
using testing::HasSubstr;

class FileReaderTest : public testing::Test {
 protected:
  // Written an hour ago, so that the clock need not have moved on when it is written to again.
  void write(std::string_view content) {
    tests::write_file(path_, content);
    std::filesystem::last_write_time(path_, std::filesystem::file_time_type::clock::now() - std::chrono::hours(1));
  }

  tests::TempDir dir_;
  const std::filesystem::path path_ = dir_ / "file";
};

TEST_F(FileReaderTest, OpensOnlyWhatLiesBelowTheDirectoriesThatAreAllowed) {
  namespace fs = std::filesystem;
  const fs::path root = fs::canonical(dir_.path());
  for (const char* name : {"inside", "inside-too", "outside"}) {
    fs::create_directory(root / name);
    tests::write_file(root / name / "file", name);
  }
  const std::vector<std::string> within = {(root / "none").string(), (root / "inside").string()};
  const auto open = [&](const fs::path& path) { return FileReader::open(path, within); };
  EXPECT_TRUE(open(root / "inside/file"));
  fs::create_symlink(root / "inside/file", root / "back");
  EXPECT_TRUE(open(root / "back")) << "links may lead there";
  fs::create_symlink(root / "outside/file", root / "inside/out");
  fs::create_directory_symlink(root / "outside", root / "inside/away");
  for (const char* path :
       {"inside/out", "inside/away/file", "inside-too/file", "outside/file", "inside/../outside/file"}) {
    const auto opened = open(root / path);
    ASSERT_FALSE(opened) << path;
    EXPECT_THAT(opened.error().message, AllOf(HasSubstr(path), HasSubstr("leads to a file that is not below")));
  }
}

TEST_F(FileReaderTest, WaitsForAnotherProgramThatHoldsTheFile) {
  write("abcdef");
  const auto before = std::signal(SIGIO, SIG_IGN);  // tells the holder that somebody waits
  Descriptor holder(::open(path_.c_str(), O_RDWR | O_CLOEXEC));
  if (::fcntl(holder.get(), F_SETLEASE, F_WRLCK) != 0) GTEST_SKIP() << "this file system knows no leases";
  auto opened = std::async(std::launch::async, [this] { return FileReader::open(path_); });
  // A lease that somebody wants broken is not what it was any more.
  while (::fcntl(holder.get(), F_GETLEASE) == F_WRLCK) std::this_thread::yield();
  EXPECT_EQ(opened.wait_for(std::chrono::seconds(0)), std::future_status::timeout);
  holder.reset();
  const auto file = opened.get();
  EXPECT_TRUE(file) << file.error().message;
  std::signal(SIGIO, before);
}

TEST_F(FileReaderTest, GivesBytesFromAnywhere) {
  write("abcdef");
  const auto file = FileReader::open(path_);
  ASSERT_TRUE(file) << file.error().message;
  EXPECT_EQ((*file)->size(), 6u);
  std::vector<uint8_t> bytes(3);
  ASSERT_TRUE((*file)->read(2, bytes));
  EXPECT_THAT(bytes, ElementsAre('c', 'd', 'e'));
  EXPECT_TRUE((*file)->read(6, {}));
}

TEST_F(FileReaderTest, SaysThatAFileWasCutShortWhereverItIsRead) {
  write("abcdef");
  const auto file = FileReader::open(path_);
  ASSERT_TRUE(file);
  std::filesystem::resize_file(path_, 4);
  std::vector<uint8_t> bytes(3);
  for (const uint64_t offset : {0, 2, 5}) {
    EXPECT_THAT((*file)->read(offset, bytes).error().message,
                AllOf(HasSubstr(path_.string()), HasSubstr("became shorter while it was read")));
  }
}

TEST_F(FileReaderTest, SaysThatAFileWasWrittenTo) {
  write("abcdef");
  const auto file = FileReader::open(path_);
  ASSERT_TRUE(file);
  tests::write_file(path_, "abcdeg");
  std::vector<uint8_t> bytes(1);
  EXPECT_THAT((*file)->read(0, bytes).error().message, HasSubstr("was written to while it was read"));
  tests::write_file(path_, "abcdefg");
  EXPECT_THAT((*file)->read(0, bytes).error().message, HasSubstr("was written to while it was read"));
}

TEST_F(FileReaderTest, KeepsTheFileThatItOpenedWhenAnotherTakesItsName) {
  write("abc");
  const auto file = FileReader::open(path_);
  ASSERT_TRUE(file);
  tests::write_file(dir_ / "new", "xyz");
  std::filesystem::rename(dir_ / "new", path_);
  std::vector<uint8_t> bytes(3);
  ASSERT_TRUE((*file)->read(0, bytes));
  EXPECT_THAT(bytes, ElementsAre('a', 'b', 'c'));
}

TEST_F(FileReaderTest, RefusesWhatIsNoRegularFile) {
  EXPECT_THAT(FileReader::open(path_).error().message, HasSubstr("No such file"));
  EXPECT_THAT(FileReader::open(dir_.path()).error().message, HasSubstr("not a regular file"));
  ASSERT_EQ(::mkfifo(path_.c_str(), 0600), 0);
  EXPECT_THAT(FileReader::open(path_).error().message, HasSubstr("not a regular file"));
}

}  // namespace
}  // namespace lorikeet::model
