#include "launcher/json_stderr.h"

#include <fcntl.h>
#include <gtest/gtest.h>
#include <unistd.h>

#include <atomic>
#include <csignal>
#include <cstdlib>
#include <future>
#include <nlohmann/json.hpp>
#include <sstream>
#include <thread>
#include <vector>

#include "kernels/base/console.h"
#include "kernels/base/last_words.h"
#include "tests/launcher/process.h"

namespace lorikeet::launcher {
namespace {

using nlohmann::json;
using Clock = std::chrono::system_clock;

json line_of(const std::string& text) {
  return json::parse(json_line(text, Clock::time_point(std::chrono::milliseconds(1'000'000'000'123))));
}

TEST(JsonLine, LeavesAnObjectAsItIsAndMakesOneOfEverythingElse) {
  EXPECT_EQ(json_line(R"({"event":"request"})", Clock::now()), R"({"event":"request"})");
  for (const std::string text :
       {R"({"a":1})", "rank 0 was killed by signal 9", "{no object", "[1]", "\"text\"", "12", "a\tb\x1b[1m"}) {
    const json line = line_of(text);
    EXPECT_EQ(line["line"], text);
    EXPECT_EQ(line["event"], "message");
    EXPECT_EQ(line["level"], "info");
  }
  EXPECT_EQ(line_of("\xFF!")["line"], "\xEF\xBF\xBD!");
  const std::string time = line_of("x")["time"];
  ASSERT_EQ(time.size(), std::string("2001-09-09T01:46:40.123+00:00").size()) << time;
  EXPECT_EQ(time.substr(10, 1), "T");
  EXPECT_EQ(time.substr(16), ":40.123" + time.substr(23)) << "what zone it is";
}

TEST(JsonLine, SaysHowBadItIs) {
  EXPECT_EQ(line_of("warning: adapter x: there is none")["level"], "warning");
  EXPECT_EQ(line_of("lorikeet serve: rank 0 was killed by signal 9")["level"], "error");
  EXPECT_EQ(line_of("lorikeet: 2 processes cannot be killed and are left behind")["level"], "error");
  EXPECT_EQ(line_of("terminate called after throwing an instance of 'std::bad_alloc'")["level"], "critical");
  EXPECT_EQ(line_of("*** Check failure stack trace: ***")["level"], "critical");
  EXPECT_EQ(line_of("lorikeets sing")["level"], "info");
  EXPECT_EQ(line_of("W1130 12:00:00.000000 7 x.cc:1] odd")["level"], "warning");
  EXPECT_EQ(line_of("E1130 12:00:00.000000 7 x.cc:1] odd")["level"], "error");
  EXPECT_EQ(line_of("E20261130 13:59:33.455387 7 x.cc:1] odd")["level"], "error");
  EXPECT_EQ(line_of("F1130 12:00:00.000000 7 x.cc:1] odd")["level"], "critical");
  EXPECT_EQ(line_of("I1130 12:00:00.000000 7 x.cc:1] odd")["level"], "info");
  for (const char* text : {"W113", "Words", "E12345", "Every"}) EXPECT_EQ(line_of(text)["level"], "info") << text;
}

TEST(JsonStderr, MakesObjectsOfWhatComesInPiecesAndGivesBackWhatWasThere) {
  tests::TempDir scratch;
  const Descriptor own(dup(STDERR_FILENO));
  const Descriptor file(open((scratch / "err").c_str(), O_CREAT | O_WRONLY | O_APPEND, 0600));
  ASSERT_GE(dup2(file.get(), STDERR_FILENO), 0);
  {
    const auto json = JsonStderr::begin();
    ASSERT_TRUE(json);
    say("one\ntwo");
    say_text(STDERR_FILENO, "thr");
    say_text(STDERR_FILENO, "ee\n\n{\"event\":\"four\"}\n");
    say("{}", std::string(100'000, 'x'));
    std::string two_bytes_each = "y";  // an odd one before them
    for (int i = 0; i < 50'000; ++i) two_bytes_each += "\xC3\xA4";
    say("{}", two_bytes_each);
    say_text(STDERR_FILENO, "no end");
  }
  say("as before");
  dup2(own.get(), STDERR_FILENO);
  std::istringstream lines(tests::read_file(scratch / "err"));
  std::vector<std::string> said;
  size_t longest = 0, of_two_bytes = 0;
  for (std::string line; std::getline(lines, line);) {
    const json object = json::parse(line, nullptr, false);
    if (!object.is_object()) {
      said.push_back("raw " + line);
    } else if (const std::string text = object.value("line", ""); text.size() > 100) {
      (text[0] == 'x' ? longest : of_two_bytes) += text.size();
      EXPECT_EQ(text.find("\xEF\xBF\xBD"), std::string::npos) << "a character was cut";
    } else {
      said.push_back(text.empty() ? object["event"].get<std::string>() : text);
    }
  }
  EXPECT_EQ(said, (std::vector<std::string>{"one", "two", "three", "four", "no end", "raw as before"}));
  EXPECT_EQ(longest, 100'000U) << "in pieces";
  EXPECT_EQ(of_two_bytes, 100'001U);
}

TEST(JsonStderrDeathTest, WritesLastWordsBeforeTheProcessAborts) {
  testing::GTEST_FLAG(death_test_style) = "threadsafe";
  const auto abort_with_words = [] {
    const auto json = JsonStderr::begin();
    say("Check failed: 1 == 2");
    std::abort();
  };
  EXPECT_EXIT(abort_with_words(), testing::KilledBySignal(SIGABRT), "\"line\":\"Check failed: 1 == 2\"");
}

TEST(JsonStderrDeathTest, WritesLastWordsBeforeAProcessThatWaitsForThemEndsAtOnce) {
  testing::GTEST_FLAG(death_test_style) = "threadsafe";
  const auto end_with_words = [] {
    const auto json = JsonStderr::begin();
    say("lorikeet: 2 processes cannot be killed");
    let_last_words_out(STDERR_FILENO);
    _exit(1);
  };
  EXPECT_EXIT(end_with_words(), testing::ExitedWithCode(1), "\"line\":\"lorikeet: 2 processes cannot be killed\"");
}

// Somebody who was started meanwhile may live on with the pipe, silent or not.
TEST(JsonStderr, EndsAlthoughSomebodyHoldsThePipe) {
  std::signal(SIGPIPE, SIG_IGN);
  for (const bool talks : {false, true}) {
    tests::TempDir scratch;
    const Descriptor own(dup(STDERR_FILENO));
    const Descriptor file(open((scratch / "err").c_str(), O_CREAT | O_WRONLY | O_APPEND, 0600));
    ASSERT_GE(dup2(file.get(), STDERR_FILENO), 0);
    Descriptor held;
    std::atomic<bool> over{false};
    std::thread talker;
    std::promise<void> ended;
    std::thread ending([&] {
      {
        const auto json = JsonStderr::begin();
        held.reset(dup(STDERR_FILENO));
        say_line(held.get(), "first");
        if (talks) {
          fcntl(held.get(), F_SETFL, O_NONBLOCK);
          talker = std::thread([&] {
            while (!over) (void)!write(held.get(), "more\n", 5);
          });
        }
      }
      ended.set_value();
    });
    EXPECT_EQ(ended.get_future().wait_for(std::chrono::seconds(60)), std::future_status::ready);
    ending.join();
    over = true;
    if (talker.joinable()) talker.join();
    dup2(own.get(), STDERR_FILENO);
    const std::string said = tests::read_file(scratch / "err");
    EXPECT_EQ(json::parse(said.substr(0, said.find('\n')))["line"], "first");
  }
}

TEST(JsonStderr, SaysThatThereIsNoStandardError) {
  const Descriptor own(dup(STDERR_FILENO));
  close(STDERR_FILENO);
  const auto json = JsonStderr::begin();
  dup2(own.get(), STDERR_FILENO);
  ASSERT_FALSE(json);
  EXPECT_EQ(json.error().message, "the log's pipe cannot be made: Bad file descriptor");
}

}  // namespace
}  // namespace lorikeet::launcher
