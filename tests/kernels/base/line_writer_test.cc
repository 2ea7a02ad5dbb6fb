#include "kernels/base/line_writer.h"

#include <fcntl.h>
#include <gtest/gtest.h>

#include <array>
#include <csignal>
#include <sstream>
#include <vector>

#include "kernels/base/descriptor.h"

namespace lorikeet {
namespace {

constexpr std::chrono::milliseconds kBriefly{1};

class LineWriterTest : public testing::Test {
 protected:
  LineWriterTest() {
    std::array<int, 2> ends{};
    EXPECT_EQ(pipe2(ends.data(), O_CLOEXEC), 0);
    reader_.reset(ends[0]);
    writer_.reset(ends[1]);
    EXPECT_GT(fcntl(writer_.get(), F_SETPIPE_SZ, 8192), 0);
    fcntl(reader_.get(), F_SETFL, O_NONBLOCK);
  }

  void read_all() {
    std::array<char, 8192> bytes{};
    for (ssize_t got = 0; (got = read(reader_.get(), bytes.data(), bytes.size())) > 0;) {
      text_.append(bytes.data(), static_cast<size_t>(got));
    }
  }

  Descriptor reader_, writer_;
  std::string text_;  // that was read
};

TEST_F(LineWriterTest, FinishesALineThatItsReaderHasGotAPartOfBeforeItWritesAnother) {
  LineWriter lines(writer_.get(), kBriefly);
  const std::string whole(30'000, 'x');
  lines.write(whole);
  lines.write("dropped");
  for (int i = 0; i < 4; ++i) {
    read_all();
    lines.write("dropped or not");
  }
  read_all();
  lines.write("last");
  read_all();
  std::vector<std::string> seen;
  std::istringstream stream(text_);
  for (std::string line; std::getline(stream, line);) seen.push_back(line);
  ASSERT_GE(seen.size(), 2U);
  EXPECT_EQ(seen.front(), whole);
  EXPECT_EQ(seen.back(), "last");
  for (size_t i = 1; i + 1 < seen.size(); ++i) EXPECT_EQ(seen[i], "dropped or not");
  EXPECT_EQ(text_.back(), '\n');
}

TEST_F(LineWriterTest, GoesOnWhenItsReaderIsGone) {
  std::signal(SIGPIPE, SIG_IGN);
  LineWriter lines(writer_.get(), kBriefly);
  reader_.reset();
  for (int i = 0; i < 3; ++i) lines.write("to nobody");
  PatientWriter writer(kBriefly);
  EXPECT_EQ(writer.write(writer_.get(), "to nobody"), 0U);
  EXPECT_EQ(writer.write(-1, "to nothing"), 0U);
}

}  // namespace
}  // namespace lorikeet
