#include "launcher/json_lines.h"

#include <gtest/gtest.h>

#include "tests/launcher/process.h"

namespace lorikeet::launcher {
namespace {

TEST(LineReader, SkipsEmptyLinesButCountsThem) {
  tests::TempDir scratch;
  tests::write_file(scratch / "f", "one\r\n\n  \ntwo");
  auto reader = LineReader::open((scratch / "f").string()).value();
  EXPECT_EQ(reader.next(), "one");
  EXPECT_EQ(reader.line_number(), 1);
  EXPECT_EQ(reader.next(), "two");
  EXPECT_EQ(reader.line_number(), 4);
  EXPECT_EQ(reader.next(), std::nullopt);
}

TEST(LineReader, CutsALineThatIsTooLong) {
  tests::TempDir scratch;
  tests::write_file(scratch / "f", std::string(LineReader::kMaxLine + 100, 'x') + "\nnext\n");
  auto reader = LineReader::open((scratch / "f").string()).value();
  EXPECT_EQ(reader.next()->size(), LineReader::kMaxLine + 1);
  EXPECT_EQ(reader.next(), "next");
}

TEST(LineReader, SaysWhichFileIsMissing) {
  const auto reader = LineReader::open("/nowhere/f");
  ASSERT_FALSE(reader.has_value());
  EXPECT_EQ(reader.error().message, "/nowhere/f: No such file or directory");
}

TEST(LineFileWriter, TellsThatTheDiskIsFull) {
  auto writer = LineFileWriter::open("/dev/full").value();
  const auto written = writer.write("x");
  ASSERT_FALSE(written.has_value());
  EXPECT_EQ(written.error().message, "cannot write to /dev/full: No space left on device");
}

}  // namespace
}  // namespace lorikeet::launcher
