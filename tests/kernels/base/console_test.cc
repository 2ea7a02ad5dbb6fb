#include "kernels/base/console.h"

#include <fcntl.h>
#include <gtest/gtest.h>

#include <array>
#include <csignal>

#include "kernels/base/descriptor.h"

namespace lorikeet {
namespace {

struct Ends {
  Descriptor reader, writer;
};

Ends make_pipe() {
  std::array<int, 2> ends{};
  EXPECT_EQ(pipe2(ends.data(), O_CLOEXEC), 0);
  return {Descriptor(ends[0]), Descriptor(ends[1])};
}

std::string read_some(int descriptor) {
  std::string text(1 << 16, '\0');
  const ssize_t got = read(descriptor, text.data(), text.size());
  text.resize(got > 0 ? static_cast<size_t>(got) : 0);
  return text;
}

TEST(Console, WritesALine) {
  const Ends pipe = make_pipe();
  say_line(pipe.writer.get(), "loading");
  EXPECT_EQ(read_some(pipe.reader.get()), "loading\n");
  say_line(pipe.writer.get(), std::string(20'000, 'x'));
  EXPECT_EQ(read_some(pipe.reader.get()).size(), 20'001u) << "longer than what a pipe takes at once";
}

TEST(Console, GoesOnWhenNobodyCanHear) {
  std::signal(SIGPIPE, SIG_IGN);
  Ends pipe = make_pipe();
  pipe.reader.reset();
  say_line(pipe.writer.get(), "to a closed pipe");
  const Descriptor full(open("/dev/full", O_WRONLY | O_CLOEXEC));
  say_line(full.get(), "to a full disk");
  say_line(-1, "to nothing");
  say_line(9999, "to a descriptor that is none");
}

TEST(Console, DropsWhatAReaderThatSleepsDoesNotTakeAndSpeaksAgainWhenItReads) {
  const Ends pipe = make_pipe();
  fcntl(pipe.writer.get(), F_SETFL, O_NONBLOCK);
  const std::string page(4096, 'x');
  while (write(pipe.writer.get(), page.data(), page.size()) > 0) {
  }
  fcntl(pipe.writer.get(), F_SETFL, 0);  // a write would wait from here on
  for (int i = 0; i < 100; ++i) say_line(pipe.writer.get(), "dropped");
  std::string all;
  for (size_t size = 1; size > 0 && all.size() < (1 << 16);) {
    const std::string more = read_some(pipe.reader.get());
    size = more.size();
    all += more;
  }
  EXPECT_EQ(all.find("dropped"), std::string::npos);
  say_line(pipe.writer.get(), "awake");
  EXPECT_EQ(read_some(pipe.reader.get()), "awake\n");
}

TEST(Console, TellsThatWhatWasAskedForCannotBeWritten) {
  std::FILE* full = std::fopen("/dev/full", "w");
  const auto ok = write_text(full, "a table");
  ASSERT_FALSE(ok);
  EXPECT_NE(ok.error().message.find("No space left on device"), std::string::npos) << ok.error().message;
  std::fclose(full);
}

}  // namespace
}  // namespace lorikeet
