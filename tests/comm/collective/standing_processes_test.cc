#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <signal.h>

#include <memory>
#include <string>

#include "tests/comm/collective/processes.h"

namespace lorikeet::comm {
namespace {

using ::testing::ElementsAre;

TEST(StandingProcesses, KeepWhatTheyBeganWithFromQuestionToQuestion) {
  StandingProcesses children(2, [](int rank) -> StandingProcesses::Answer {
    const auto asked = std::make_shared<int>(10 * rank);
    return [asked](const std::string& question) { return question + std::to_string(++*asked); };
  });
  EXPECT_THAT(children.ask("a"), ElementsAre("a1", "a11"));
  EXPECT_THAT(children.ask("b"), ElementsAre("b2", "b12"));
}

TEST(StandingProcesses, MayHaveNothingToSayAndSayMuch) {
  StandingProcesses children(
      1, [](int) { return [](const std::string& question) { return std::string(std::stoul(question), 'x'); }; });
  EXPECT_THAT(children.ask("0"), ElementsAre(""));
  EXPECT_THAT(children.ask("60000"), ElementsAre(std::string(60'000, 'x')));
  EXPECT_GT(children.ask("100000")[0].size(), 60'000U) << "the end of it is left out";
  EXPECT_THAT(children.ask("3"), ElementsAre("xxx"));
}

TEST(StandingProcesses, AreMissedWhenTheyDie) {
  StandingProcesses children(2, [](int rank) -> StandingProcesses::Answer {
    return [rank](const std::string&) {
      if (rank == 1) raise(SIGKILL);
      return std::string("here");
    };
  });
  EXPECT_THAT(children.ask("?"), ElementsAre("here", "the process has ended"));
  EXPECT_THAT(children.ask("?"), ElementsAre("here", "the process has ended"));
}

TEST(StandingProcesses, AskWhileOthersStand) {
  const auto begin = [](int) { return [](const std::string& question) { return question; }; };
  auto first = std::make_unique<StandingProcesses>(2, begin);
  StandingProcesses second(2, begin);
  EXPECT_THAT(first->ask("1"), ElementsAre("1", "1"));
  first = nullptr;  // ends, although the second ones have copies of its lines
  EXPECT_THAT(second.ask("2"), ElementsAre("2", "2"));
}

}  // namespace
}  // namespace lorikeet::comm
