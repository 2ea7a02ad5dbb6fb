#include "launcher/stream_printer.h"

#include <gtest/gtest.h>

#include "tests/launcher/process.h"

namespace lorikeet::launcher {
namespace {

class StreamPrinterTest : public testing::Test {
 protected:
  std::string printed() {
    std::fclose(out_);
    return tests::read_file(scratch_ / "out");
  }
  tests::TempDir scratch_;
  std::FILE* out_ = std::fopen((scratch_ / "out").c_str(), "wb");
};

TEST_F(StreamPrinterTest, PrintsASingleAnswerAsItComes) {
  StreamPrinter printer(out_, {"only"});
  printer.text(0, "Call ");
  printer.text(0, "me");
  printer.end(0, "[stop]");
  EXPECT_EQ(printed(), "Call me\n");
}

TEST_F(StreamPrinterTest, KeepsSeveralAnswersApartByWholeLines) {
  StreamPrinter printer(out_, {"a", "long"});
  printer.text(0, "first");
  printer.text(1, "second\nthird");
  printer.text(0, " line\n");
  printer.end(1, "[stop]");
  printer.end(0, "[length]");
  EXPECT_EQ(printed(), "long | second\na    | first line\nlong | third\nlong | [stop]\na    | [length]\n");
}

TEST_F(StreamPrinterTest, BreaksLongLinesAtASpace) {
  StreamPrinter printer(out_, {"a", "b"});
  printer.text(0, std::string(50, 'x') + " " + std::string(50, 'y'));
  printer.end(0, "[stop]");
  EXPECT_EQ(printed(), "a | " + std::string(50, 'x') + "\na | " + std::string(50, 'y') + "\na | [stop]\n");
}

}  // namespace
}  // namespace lorikeet::launcher
