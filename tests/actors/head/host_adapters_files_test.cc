// Files that are written while an adapter is served.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "actors/head/adapter_key.h"
#include "actors/head/host_adapters.h"
#include "tests/actors/head/adapter_tables_test.h"

namespace lorikeet::actors {
namespace {

using engine::SequenceId;
using ::testing::HasSubstr;

using HostAdaptersFilesTest = AdapterTablesTest;

FileStamp just_written(int64_t version) {
  FileStamp young = stamp(version);
  young.conclusive = false;
  young.young = true;
  return young;
}

TEST_F(HostAdaptersFilesTest, ServesWhatIsInMemoryWhileOtherFilesAreBeingWritten) {
  make({2, 4, 100});
  claim(1, "a", "A");
  wishes();
  const FileStamp young = just_written(2);
  for (const uint64_t id : {2, 3}) {
    resolve(id, "a");
    tables_->checked("a", young);
    tables_->read("a", young, fail("/a: the file ends early"));
    EXPECT_THAT(wishes(), ::testing::ElementsAre("check a", "read a", "resolved " + std::to_string(id) + " A"));
    EXPECT_EQ(row("a").error,
              "/a: the file ends early; its files were written just now: what they held before is served until they "
              "are whole");
  }
  resolve(4, "a");
  checked("a", 2);  // nobody has written for a while: it is what is there
  tables_->read("a", stamp(2), fail("/a: the file ends early"));
  EXPECT_THAT(wishes(), ::testing::ElementsAre("check a", "read a", "resolved 4 error: /a: the file ends early"));
  EXPECT_EQ(row("a").error, "/a: the file ends early");
  claim(5, "a", "B", 10, 3);
  EXPECT_THAT(wishes(), ::testing::ElementsAre("check a", "read a", "resolved 5 B"));
  EXPECT_EQ(row("a").error, "");
}

TEST_F(HostAdaptersFilesTest, RefusesFilesThatCannotBeReadWhoseTimeOfChangeLiesFarAhead) {
  make({2, 4, 100});
  claim(1, "a", "A");
  wishes();
  FileStamp ahead = stamp(2);
  ahead.conclusive = false;  // and not young
  resolve(2, "a");
  tables_->checked("a", ahead);
  tables_->read("a", ahead, fail("/a: the file ends early"));
  EXPECT_THAT(wishes(), ::testing::ElementsAre("check a", "read a", "resolved 2 error: /a: the file ends early"));
}

TEST_F(HostAdaptersFilesTest, SaysThatFilesWereWrittenJustNowWhereNothingElseCanBeServed) {
  make({2, 4, 100});
  const FileStamp young = just_written(1);
  resolve(1, "a");
  tables_->checked("a", young);
  tables_->read("a", young, fail("/a: the file ends early"));
  EXPECT_THAT(wishes(), ::testing::ElementsAre(
                            "check a", "read a",
                            "resolved 1 error: /a: the file ends early; its files were written just now, and every "
                            "request looks at them anew: if they are being copied, ask again when they are whole"));
  claim(2, "a", "A");
  EXPECT_THAT(wishes(), ::testing::Contains("resolved 2 A"));
}

// No request looks at them anew.
TEST_F(HostAdaptersFilesTest, SaysOfFilesThatAreLoadedWhileTheyAreWrittenThatTheyAreToBeLoadedAgain) {
  make({2, 4, 100});
  const std::string key = loaded_key("n", 1);
  tables_->host([&](auto& host) { host.prepare(SequenceId(1), key, "/n"); });
  tables_->checked(key, just_written(1));
  tables_->read(key, just_written(1), fail("/n: the file ends early"));
  EXPECT_EQ(
      wishes().back(),
      "resolved 1 error: /n: the file ends early; its files were written just now: if they are being copied, load "
      "it again when they are whole");
}

TEST_F(HostAdaptersFilesTest, ServesWhatWasSetAsideToNobodyWhileOtherFilesAreBeingWritten) {
  make({2, 4, 100});
  for (const uint64_t id : {1, 2, 3}) {
    claim(id, "a", "A");
    tables_->unclaim(SequenceId(id), AdapterOutcome::no_token);
  }
  wishes();
  const FileStamp young = just_written(2);
  resolve(4, "a");
  tables_->checked("a", young);
  tables_->read("a", young, fail("/a: the file ends early"));
  EXPECT_THAT(wishes(), ::testing::Contains(HasSubstr("resolved 4 error: /a: set aside")));
}

}  // namespace
}  // namespace lorikeet::actors
