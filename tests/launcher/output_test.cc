// Where nobody hears what a server says (a closed terminal, a full disk, a pager that is not read on), it serves on.
#include <gtest/gtest.h>
#include <signal.h>

#include <nlohmann/json.hpp>
#include <optional>
#include <set>
#include <sstream>

#include "tests/launcher/served.h"

namespace lorikeet::tests {
namespace {

enum class Listener { closed, asleep, full_disk };

class OutputTest : public testing::TestWithParam<Listener> {
 protected:
  std::filesystem::path err() const {
    return GetParam() == Listener::full_disk ? std::filesystem::path("/dev/full") : pipe_.path();
  }
  void stop_listening() {
    if (GetParam() == Listener::closed) pipe_.close_reader();
    if (GetParam() == Listener::asleep) pipe_.fill();
  }
  void expect_service_unheard(const std::vector<std::string>& flags);

  TempDir scratch_;
  Pipe pipe_{scratch_ / "err"};
};

void OutputTest::expect_service_unheard(const std::vector<std::string>& flags) {
  Served server(flags, err());
  ASSERT_TRUE(server.ready());
  stop_listening();
  const auto expect_answer = [&] {
    const Answer answer = server.ask(greedy_request("Call me", "moby", 8));
    EXPECT_TRUE(answer.done) << (answer.failure ? answer.failure->message : "no answer");
  };
  expect_answer();
  kill(server.status()["ranks"][1]["pid"].get<int>(), SIGKILL);
  // A request that comes before the loss is noticed shares it.
  for (int i = 0; i < 600 && server.status()["epoch"] != 2; ++i) {
  }
  expect_answer();
  server.process().signal(SIGTERM);
  EXPECT_EQ(server.process().wait(), 0);
}

TEST_P(OutputTest, ServeAnswersRestartsALostRankAndObeysSignals) {
  expect_service_unheard({"--tp", "2"});
}

TEST_P(OutputTest, ServeDoesTheSameWithALogInJson) {
  expect_service_unheard({"--tp", "2", "--log-json"});
}

TEST_P(OutputTest, BatchWritesItsResults) {
  write_file(scratch_ / "requests.jsonl", R"({"id": "1", "prompt": "Call me", "max_tokens": 4})"
                                          "\n");
  std::vector<std::string> flags = {"batch"};
  flags.insert(flags.end(), example_flags().begin(), example_flags().end());
  flags.insert(flags.end(),
               {"--input", (scratch_ / "requests.jsonl").string(), "--output", (scratch_ / "results.jsonl").string()});
  if (GetParam() == Listener::asleep) pipe_.fill();
  Process batch(flags, scratch_, "batch", err());
  if (GetParam() == Listener::closed) {
    // Only now has somebody opened it who can be disappointed.
    while (batch.running() && !std::filesystem::exists(scratch_ / "results.jsonl")) {
    }
    pipe_.close_reader();
  }
  EXPECT_EQ(batch.wait(), 0);
  const auto result = nlohmann::json::parse(read_file(scratch_ / "results.jsonl"));
  EXPECT_TRUE(result["error"].is_null()) << result;
  EXPECT_EQ(result["usage"]["completion_tokens"], 4);
}

std::string name_of(const testing::TestParamInfo<Listener>& listener) {
  constexpr const char* kNames[] = {"closed", "asleep", "full_disk"};
  return kNames[static_cast<size_t>(listener.param)];
}

INSTANTIATE_TEST_SUITE_P(Listeners, OutputTest,
                         testing::Values(Listener::closed, Listener::asleep, Listener::full_disk), name_of);

TEST(Output, EveryLineOfALogInJsonIsAnObject) {
  Served server({"--tp", "2", "--log-json", "--lora-modules", "none=/"});
  ASSERT_TRUE(server.ready()) << server.process().err();
  EXPECT_TRUE(server.ask(greedy_request("Call me", "moby", 4)).done);
  const int rank = server.status()["ranks"][1]["pid"].get<int>();
  // What a library in a rank might say.
  write_file("/proc/" + std::to_string(rank) + "/fd/2",
             "W1130 12:00:00.000000 7 x.cc:1] \"odd\" \\ \xFF\n\n{no object\n");
  EXPECT_TRUE(server.process().wait_for_err("{no object"));
  kill(rank, SIGKILL);
  EXPECT_TRUE(server.process().wait_for_err("serving again (epoch 2)"));
  EXPECT_TRUE(server.ask(greedy_request("Call me", "moby", 4)).done);
  server.process().signal(SIGTERM);
  EXPECT_EQ(server.process().wait(), 0);
  std::istringstream lines(server.process().err());
  std::multiset<std::string> events, levels;
  bool killed = false;
  for (std::string line; std::getline(lines, line);) {
    const auto object = nlohmann::json::parse(line, nullptr, false);
    ASSERT_TRUE(object.is_object()) << line;
    for (const char* name : {"time", "level", "event"}) ASSERT_TRUE(object.contains(name)) << line;
    events.insert(object["event"].get<std::string>());
    levels.insert(object["level"].get<std::string>());
    killed |= object.value("line", "") == "lorikeet serve: rank 1 was killed by signal 9";
  }
  EXPECT_TRUE(killed) << server.process().err();
  EXPECT_EQ(events.count("request"), 2U);
  EXPECT_EQ(levels.count("warning"), 2U) << "of the adapter, of the library";
}

TEST(Output, CommandsWhoseOutputCannotBeWrittenSaySoAndFail) {
  const std::string model = source_path("examples/models/tiny-qwen2-gptq-int4").string();
  TempDir scratch;
  std::filesystem::create_symlink("/dev/full", scratch / "run.out");
  Process inspect({"inspect", model}, scratch, "run");
  EXPECT_EQ(inspect.wait(), 1);
  EXPECT_NE(inspect.err().find("the output cannot be written: No space left on device"), std::string::npos)
      << inspect.err();
}

}  // namespace
}  // namespace lorikeet::tests
