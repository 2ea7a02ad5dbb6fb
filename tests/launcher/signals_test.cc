// What a server does when it, its group or one of its processes is signalled, and what is left of it afterwards.
#include <gtest/gtest.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>

#include <chrono>

#include "tests/launcher/served.h"

namespace lorikeet::tests {
namespace {

size_t entries_of(const std::filesystem::path& directory) {
  std::error_code error;
  const std::filesystem::directory_iterator all(directory, error);
  return error ? 0 : static_cast<size_t>(std::distance(begin(all), end(all)));
}

size_t count_of(const std::string& text, const std::string& piece) {
  size_t count = 0;
  for (size_t at = text.find(piece); at != std::string::npos; at = text.find(piece, at + 1)) ++count;
  return count;
}

comm::GenerateRequest long_request(int max_tokens = 1500) {
  return greedy_request("Call me", std::nullopt, max_tokens);
}

void wait_for_delta(comm::ZmqClient& client) {
  for (;;) {
    const auto message = client.receive(std::chrono::seconds(60));
    ASSERT_TRUE(message);
    ASSERT_FALSE(std::holds_alternative<comm::Failure>(*message));
    if (std::holds_alternative<comm::Delta>(*message)) return;
  }
}

class SignalsToTheGroup : public testing::TestWithParam<int> {};

TEST_P(SignalsToTheGroup, GiveEveryClientItsFinalAnswerAndLeaveNothing) {
  Served server({"--tp", "2", "--drain-timeout", "0"});
  ASSERT_TRUE(server.ready()) << server.process().err();
  const auto children = descendants_of(server.process().pid());
  const auto client = server.connect();
  auto request = long_request();
  for (const char* id : {"0", "1"}) {
    request.id = id;
    ASSERT_TRUE(client->send(request));
  }
  wait_for_delta(*client);
  server.process().signal_group(GetParam());
  for (const Answer& answer : collect(*client, 2)) {
    EXPECT_EQ(answer.final_answers, 1);
    ASSERT_TRUE(answer.failure) << "it was to run longer than the server";
    EXPECT_EQ(answer.failure->code, "shutting_down") << answer.failure->message;
  }
  EXPECT_EQ(server.process().wait(), 0) << server.process().err();
  EXPECT_TRUE(wait_until_gone(children));
  EXPECT_FALSE(std::filesystem::exists(server.scratch() / "zmq"));
}

// As `timeout` does it: to its child, and at once to the child's group.
TEST(Signals, ThatComeTogetherAreOneAndLetStreamsEnd) {
  Served server({"--tp", "2"});
  ASSERT_TRUE(server.ready()) << server.process().err();
  const auto client = server.connect();
  ASSERT_TRUE(client->send(long_request(300)));
  wait_for_delta(*client);
  server.process().signal(SIGTERM);
  server.process().signal_group(SIGTERM);
  server.process().signal(SIGHUP);
  const Answer answer = collect(*client, 1)[0];
  EXPECT_TRUE(answer.done) << (answer.failure ? answer.failure->message : "");
  EXPECT_EQ(server.process().wait(), 0) << server.process().err();
}

// The ranks rest, so that what was asked for is still to be answered whenever the second one comes.
TEST(Signals, TheSecondOneCutsStreamsAndIsTheExitStatus) {
  Served server({"--tp", "2", "--drain-timeout", "600", "--heartbeat-ms", "60000"});
  ASSERT_TRUE(server.ready()) << server.process().err();
  for (const auto& rank : server.status()["ranks"]) kill(rank["pid"].get<int>(), SIGSTOP);
  const auto client = server.connect();
  ASSERT_TRUE(client->send(long_request()));
  const auto deadline = std::chrono::steady_clock::now() + std::chrono::seconds(60);
  const auto has_time = [&] { return std::chrono::steady_clock::now() < deadline; };
  const auto is_live = [&] {
    const auto engine = server.status()["engine"];
    return engine["running"].get<int>() + engine["waiting"].get<int>() == 1;
  };
  while (!is_live()) ASSERT_TRUE(has_time());
  server.process().signal(SIGTERM);
  // Signals within a quarter of a second are one, so the next one is sent until it counts.
  while (server.process().running() && has_time()) {
    server.process().signal(SIGINT);
    (void)client->receive(std::chrono::milliseconds(20));
  }
  EXPECT_EQ(server.process().wait(), 128 + SIGINT) << server.process().err();
}

INSTANTIATE_TEST_SUITE_P(Signals, SignalsToTheGroup, testing::Values(SIGINT, SIGTERM, SIGHUP),
                         [](const auto& number) { return std::string("SIG") + sigabbrev_np(number.param); });

TEST(Signals, ToTheGroupThatAreTheSupervisorsAloneDisturbNobody) {
  Served server({"--tp", "2"});
  ASSERT_TRUE(server.ready()) << server.process().err();
  const auto client = server.connect();
  ASSERT_TRUE(client->send(long_request()));
  wait_for_delta(*client);
  for (const pid_t child : descendants_of(server.process().pid())) {
    for (const int number : {SIGINT, SIGTERM, SIGHUP, SIGTSTP}) kill(child, number);
  }
  EXPECT_TRUE(collect(*client, 1)[0].done);
  EXPECT_EQ(server.status()["epoch"], 1);
}

TEST(Signals, TheRankThatDiesIsNamedEveryTimeAndLeavesNoDescriptorAndNoThread) {
  Served server({"--tp", "2"});
  ASSERT_TRUE(server.ready()) << server.process().err();
  const std::filesystem::path self = "/proc/" + std::to_string(server.process().pid());
  size_t descriptors = 0, threads = 0;
  constexpr int kTimes = 12;
  for (int i = 0; i < kTimes; ++i) {
    SCOPED_TRACE(i);
    const auto client = server.connect();
    ASSERT_TRUE(client->send(long_request(200)));
    wait_for_delta(*client);
    const auto status = server.status();
    kill(status["ranks"][static_cast<size_t>(i % 2)]["pid"].get<int>(), SIGKILL);
    EXPECT_EQ(collect(*client, 1)[0].final_answers, 1);
    ASSERT_TRUE(server.ask(greedy_request("Call me", std::nullopt, 2)).done);
    EXPECT_EQ(server.status()["last_pauses"].back()["why"],
              "rank " + std::to_string(i % 2) + " was killed by signal 9");
    if (i == 0) {
      descriptors = entries_of(self / "fd");
      threads = entries_of(self / "task");
    }
  }
  for (const int rank : {0, 1}) {
    const std::string sentence = "rank " + std::to_string(rank) + " was killed by signal 9";
    EXPECT_EQ(count_of(server.process().err(), sentence), size_t{kTimes} / 2) << server.process().err();
  }
  EXPECT_LE(entries_of(self / "fd"), descriptors);
  EXPECT_LE(entries_of(self / "task"), threads);
}

TEST(Signals, DirectoriesOfAKilledBatchAreRemovedByTheNextOne) {
  TempDir scratch;
  setenv("TMPDIR", scratch.path().c_str(), 1);
  std::filesystem::create_directory(scratch / "lorikeet-mine");  // not one of ours
  write_file(scratch / "requests.jsonl", R"({"id": "1", "prompt": "Call me", "max_tokens": 1500, "ignore_eos": true})"
                                         "\n");
  std::vector<std::string> flags = {"batch"};
  flags.insert(flags.end(), example_flags().begin(), example_flags().end());
  flags.insert(flags.end(),
               {"--input", (scratch / "requests.jsonl").string(), "--output", (scratch / "results.jsonl").string()});
  const auto directories = [&] {
    size_t count = 0;
    for (const auto& entry : std::filesystem::directory_iterator(scratch.path())) {
      count += entry.path().filename().string().rfind("lorikeet-run-", 0) == 0 ? 1 : 0;
    }
    return count;
  };
  {
    Process killed(flags, scratch, "killed");
    while (killed.running() && directories() == 0) {
    }
    killed.signal(SIGKILL);
    killed.wait();
  }
  EXPECT_EQ(directories(), 1u) << "nobody could remove it";
  Process interrupted(flags, scratch, "interrupted");
  while (interrupted.running() && interrupted.err().find("KV cache") == std::string::npos) {
  }
  EXPECT_EQ(directories(), 1u) << "its own";
  interrupted.signal_group(SIGTERM);
  interrupted.wait();
  EXPECT_EQ(directories(), 0u);
  EXPECT_TRUE(std::filesystem::exists(scratch / "lorikeet-mine"));
  unsetenv("TMPDIR");
}

}  // namespace
}  // namespace lorikeet::tests
