#include "actors/head/name_journal.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <sys/stat.h>
#include <unistd.h>

#include <filesystem>
#include <fstream>
#include <string>

#include "tests/temp_dir.h"

namespace lorikeet::actors {
namespace {

namespace fs = std::filesystem;
using ::testing::ElementsAre;
using ::testing::IsEmpty;

class NameJournalTest : public ::testing::Test {
 protected:
  // What the next head finds.
  std::vector<NameChange> found() const { return NameJournal(path_).changes(); }

  tests::TempDir dir_;
  const fs::path path_ = dir_ / "names";
  const NameChange moby_{"moby", "/adapters/moby", false, true};
  const NameChange gone_{"kjv", std::nullopt, true, false};
};

TEST_F(NameJournalTest, GivesTheNextHeadTheLastChangeOfEachName) {
  NameJournal journal(path_);
  EXPECT_THAT(journal.changes(), IsEmpty());
  ASSERT_TRUE(journal.add({"moby", "/elsewhere", false, false}));
  ASSERT_TRUE(journal.add(gone_));
  ASSERT_TRUE(journal.add({"x\xFF", "/x", false, false}));
  ASSERT_TRUE(journal.add(moby_));
  ASSERT_TRUE(journal.add({"x\xFF", std::nullopt, false, false}));
  EXPECT_THAT(found(), ElementsAre(gone_, moby_));
  EXPECT_THAT(found(), ElementsAre(gone_, moby_)) << "and the one after it";
  journal.remove();
  EXPECT_FALSE(fs::exists(path_));
}

TEST_F(NameJournalTest, IsWrittenAnewByWhoFindsItAndGoesOn) {
  {
    NameJournal journal(path_);
    for (int i = 0; i < 100; ++i) ASSERT_TRUE(journal.add(moby_));
  }
  const auto before = fs::file_size(path_);
  NameJournal next(path_);
  EXPECT_LT(fs::file_size(path_), before / 50);
  ASSERT_TRUE(next.add(gone_));
  EXPECT_THAT(found(), ElementsAre(gone_, moby_));
}

TEST_F(NameJournalTest, BelievesWhatIsWholeOfADamagedFile) {
  {
    NameJournal journal(path_);
    ASSERT_TRUE(journal.add(moby_));
    ASSERT_TRUE(journal.add(gone_));
  }
  const auto whole = fs::file_size(path_);
  fs::resize_file(path_, whole - 1);  // its head was killed in the middle of a change
  EXPECT_THAT(found(), ElementsAre(moby_));
  for (const std::string& bytes : {std::string("x"), std::string(4096, '\xFF'), std::string(4096, '\0')}) {
    std::ofstream(path_, std::ios::binary | std::ios::trunc) << bytes;
    EXPECT_THAT(found(), IsEmpty());
  }
}

TEST_F(NameJournalTest, TakesNothingButAFileOfItsOwn) {
  fs::create_symlink(dir_ / "elsewhere", path_);
  NameJournal journal(path_);
  const auto added = journal.add(moby_);
  ASSERT_FALSE(added);
  EXPECT_NE(added.error().message.find(path_.string()), std::string::npos);
  EXPECT_FALSE(fs::exists(dir_ / "elsewhere"));
  fs::remove(path_);
  ASSERT_EQ(mkfifo(path_.c_str(), 0600), 0);
  EXPECT_FALSE(NameJournal(path_).add(moby_));
}

TEST_F(NameJournalTest, LeavesThoseOfLivingServersWhenOthersAreRemoved) {
  const fs::path own = NameJournal::path_of(getpid());
  EXPECT_NE(own, NameJournal::path_of(getppid()));
  const std::string pid = "-" + std::to_string(getpid()) + "-";
  std::string other = own.filename().string();
  other = other.substr(0, other.rfind(pid) + pid.size()) + "1";  // of a process of the same number, long ago
  const fs::path dead = own.parent_path() / other;
  NameJournal living(own), left(dead);
  NameJournal::remove_dead();
  EXPECT_TRUE(fs::exists(own));
  EXPECT_FALSE(fs::exists(dead));
  living.remove();
}

}  // namespace
}  // namespace lorikeet::actors
