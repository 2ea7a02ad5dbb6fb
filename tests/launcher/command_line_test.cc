// The built `lorikeet`: what it says of its command line.
#include "launcher/command_line.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <sstream>

#include "tests/launcher/process.h"

namespace lorikeet::launcher {
namespace {

using testing::HasSubstr;
using testing::StartsWith;
using tests::run_lorikeet;

TEST(Nearest, FindsAWordWithinAThirdOfItsLetters) {
  const std::vector<std::string> known = {"serve", "submit", "status"};
  EXPECT_EQ(nearest("sevre", known), "serve");
  EXPECT_EQ(nearest("stats", known), "status");
  EXPECT_EQ(nearest("chat", known), "");
}

struct Mistake {
  std::vector<std::string> arguments;
  std::string says;
};

TEST(CommandLine, AnswersMistakesWithStatus2AndItsCommandsName) {
  const Mistake mistakes[] = {
      {{"sevre"}, "lorikeet: there is no command 'sevre'; did you mean 'serve'?"},
      {{"frobnicate"}, "lorikeet: there is no command 'frobnicate', only serve, batch"},
      {{}, "lorikeet: give a command: serve, batch"},
      {{"serve"}, "lorikeet serve: --model is required"},
      {{"serve", "x", "-ngl", "99"}, "lorikeet serve: unexpected: -ngl 99"},
      {{"serve", "x", "--max-model-length", "9"},
       "lorikeet serve: there is no '--max-model-length'; did you mean '--max-model-len'?"},
      {{"bench", "latency", "x", "--output-lenn=3"},
       "lorikeet bench latency: there is no '--output-lenn=3'; did you mean '--output-len'?"},
      {{"serve", "x", "--tensor-parallel-size", "two"}, "lorikeet serve: "},
      {{"status", "--zmq", "127.0.0.1:5555"}, "lorikeet status: --zmq: tcp:// is missing: give tcp://127.0.0.1:5555"},
  };
  for (const Mistake& mistake : mistakes) {
    const auto finished = run_lorikeet(mistake.arguments);
    EXPECT_EQ(finished.status, 2) << finished.err;
    EXPECT_THAT(finished.err, StartsWith(mistake.says));
    EXPECT_EQ(finished.out, "");
  }
}

TEST(CommandLine, NamesItselfInTheErrorsOfAServer) {
  const auto finished = run_lorikeet({"serve", "/no/such/model"});
  EXPECT_EQ(finished.status, 2);
  EXPECT_EQ(finished.err, "lorikeet serve: there is no directory /no/such/model\n");
}

TEST(CommandLine, HelpsIn80ColumnsWithoutTheParsersNotation) {
  for (const char* command : {"serve", "batch", "submit", "status", "inspect", "tokenize"}) {
    const auto finished = run_lorikeet({command, "--help"});
    EXPECT_EQ(finished.status, 0);
    std::istringstream lines(finished.out);
    for (std::string line; std::getline(lines, line);) EXPECT_LE(line.size(), 80u) << line;
    for (const char* notation : {"TEXT:{", "{false}", "=auto"})
      EXPECT_EQ(finished.out.find(notation), std::string::npos);
  }
}

TEST(CommandLine, TakesHelpAsACommand) {
  EXPECT_EQ(run_lorikeet({"help", "serve"}).out, run_lorikeet({"serve", "--help"}).out);
  EXPECT_THAT(run_lorikeet({"help"}).out, HasSubstr("serve"));
}

}  // namespace
}  // namespace lorikeet::launcher
