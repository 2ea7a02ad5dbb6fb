// Failures that only show between processes: whole servers, killed and stopped.
#include <gtest/gtest.h>
#include <signal.h>

#include <filesystem>
#include <set>

#include "tests/launcher/served.h"

namespace lorikeet::tests {
namespace {

using std::chrono::seconds;

int pid_of(const nlohmann::json& status, int rank) {
  return status["ranks"][static_cast<size_t>(rank)]["pid"].get<int>();
}

// Waits until a request streams; false if it ended or nothing came.
bool streams(comm::ZmqClient& client) {
  const auto message = client.receive(seconds(60));
  return message && std::holds_alternative<comm::Delta>(*message);
}

// A request that runs long enough for a failure to find it running.
comm::GenerateRequest long_request() {
  auto request = greedy_request("Call me", std::nullopt, 1500);
  request.ignore_eos = true;
  return request;
}

void expect_answer(const Served& server, const std::optional<std::string>& adapter) {
  const Answer answer = server.ask(greedy_request("Call me", adapter, 8));
  ASSERT_TRUE(answer.done) << (answer.failure ? answer.failure->message : "no answer");
}

std::string error_of(comm::ZmqClient& client) {
  const auto answers = collect(client, 1);
  EXPECT_EQ(answers[0].final_answers, 1);
  return answers[0].failure ? answers[0].failure->code : "";
}

TEST(Processes, NoticeARankThatIsKilledAndServeAgain) {
  Served server({"--tp", "2"});
  ASSERT_TRUE(server.ready()) << server.process().err();
  for (const int rank : {0, 1}) {
    const auto client = server.connect();
    ASSERT_TRUE(client->send(long_request()));
    ASSERT_TRUE(streams(*client));
    const auto before = server.status();
    kill(pid_of(before, rank), SIGKILL);
    EXPECT_EQ(error_of(*client), "rank_lost");
    expect_answer(server, "moby");
    const auto after = server.status();
    EXPECT_EQ(after["epoch"].get<int>(), before["epoch"].get<int>() + 1);
    EXPECT_EQ(after["head"]["pid"], before["head"]["pid"]) << "the head and its clients are left alone";
    EXPECT_NE(pid_of(after, 0), pid_of(before, 0));
    EXPECT_EQ(after["engine"]["blocks_free"], after["engine"]["blocks_total"]);
  }
}

TEST(Processes, NoticeARankThatIsStopped) {
  Served server({"--tp", "2", "--heartbeat-ms", "100"});
  ASSERT_TRUE(server.ready()) << server.process().err();
  const auto client = server.connect();
  ASSERT_TRUE(client->send(long_request()));
  ASSERT_TRUE(streams(*client));
  const int stopped = pid_of(server.status(), 1);
  kill(stopped, SIGSTOP);
  EXPECT_EQ(error_of(*client), "rank_lost");
  expect_answer(server, std::nullopt);
  EXPECT_FALSE(is_alive(stopped));
}

TEST(Processes, NoticeARankWhoseStepHangs) {
  // Heartbeats are slow here, so that the watchdogs of the steps are what notices.
  Served server({"--tp", "2", "--heartbeat-ms", "60000", "--rank-timeout-ms", "2000"});
  ASSERT_TRUE(server.ready()) << server.process().err();
  const auto client = server.connect();
  ASSERT_TRUE(client->send(long_request()));
  ASSERT_TRUE(streams(*client));
  kill(pid_of(server.status(), 1), SIGSTOP);
  EXPECT_EQ(error_of(*client), "rank_lost");
  expect_answer(server, std::nullopt);
}

TEST(Processes, StartAKilledHeadAnewAtTheSameAddress) {
  Served server({"--tp", "2"});
  ASSERT_TRUE(server.ready()) << server.process().err();
  const auto before = server.status();
  kill(before["head"]["pid"].get<int>(), SIGKILL);
  ASSERT_TRUE(wait_until_gone({before["head"]["pid"].get<int>(), pid_of(before, 0), pid_of(before, 1)}));
  expect_answer(server, "kjv");
  const auto after = server.status();
  EXPECT_NE(after["head"]["pid"], before["head"]["pid"]);
  EXPECT_EQ(after["zmq"], before["zmq"]);
}

TEST(Processes, GiveUpWithTheSentenceOfARankThatCannotLoad) {
  ScratchDirectory scratch;
  const auto model = source_path("examples/models/tiny-qwen2-gptq-int4");
  std::filesystem::copy(model, scratch / "model");
  std::filesystem::resize_file(scratch / "model/model.safetensors",
                               std::filesystem::file_size(model / "model.safetensors") / 2);
  const Finished run = run_lorikeet({"serve", "--model", (scratch / "model").string(), "--tp", "2", "--device", "cpu",
                                     "--zmq", "ipc://" + (scratch / "zmq").string()});
  EXPECT_EQ(run.status, 1);
  EXPECT_NE(run.err.find("model.safetensors"), std::string::npos) << run.err;
}

TEST(Processes, ServeARequestWhoseAdapterWasOnItsWayWhenARankDied) {
  ScratchDirectory scratch;
  const std::string release = (scratch / "release").string();
  Served server({"--tp", "2", "--test-hooks", "hold_adapter_load=kjv,release_file=" + release});
  ASSERT_TRUE(server.ready()) << server.process().err();
  const auto client = server.connect();
  ASSERT_TRUE(client->send(greedy_request("And it came to pass", "kjv", 8)));
  for (int i = 0; i < 600 && server.status()["queues"]["reading_adapters"] != 1; ++i) {
  }
  kill(pid_of(server.status(), 1), SIGKILL);
  for (int i = 0; i < 600 && server.status()["epoch"] != 2; ++i) {
  }
  expect_answer(server, "moby");
  write_file(release, "");
  const auto answers = collect(*client, 1);
  ASSERT_TRUE(answers[0].done) << (answers[0].failure ? answers[0].failure->message : "no answer");
}

TEST(Processes, GiveReplacedAdaptersToNewRequestsOnly) {
  ScratchDirectory scratch;
  const auto adapters = source_path("examples/models/adapters");
  std::filesystem::copy(adapters / "kjv", scratch / "changing");
  Served server({"--tp", "2", "--lora-modules", "changing=" + (scratch / "changing").string()});
  ASSERT_TRUE(server.ready()) << server.process().err();
  const auto question = [](const std::string& adapter) {  // of several prefix blocks
    return greedy_request(
        "And it came to pass in those days, that there went out a decree, that all the world should be taxed. And all "
        "went to be taxed, every one into his own city, and it came to pass that they were there.",
        adapter, 48);
  };
  const auto ask = [&](const std::string& adapter) {
    Answer answer = server.ask(question(adapter));
    EXPECT_TRUE(answer.done) << (answer.failure ? answer.failure->message : "no answer");
    if (!answer.done) answer.done.emplace();
    return answer;
  };
  const auto kjv = ask("kjv"), before = ask("changing");
  EXPECT_EQ(before.token_ids, kjv.token_ids);
  EXPECT_GT(before.done->usage.cached_tokens, 0) << "the same content under another name";

  // One request keeps the old content while it runs.
  auto running = long_request();
  running.adapter = "changing";
  running.max_tokens = 500;
  const auto undisturbed = server.ask(running).token_ids;
  const auto client = server.connect();
  ASSERT_TRUE(client->send(running));
  ASSERT_TRUE(streams(*client));
  for (const char* file : {"adapter_config.json", "adapter_model.safetensors"}) {
    std::filesystem::rename(scratch / (std::string("changing/") + file), scratch / (std::string("old-") + file));
    std::filesystem::copy_file(adapters / "moby" / file, scratch / (std::string("changing/") + file));
  }
  const auto after = ask("changing");
  EXPECT_EQ(after.done->usage.cached_tokens, 0) << "a prefix block of the old content";
  const auto moby = ask("moby");
  EXPECT_EQ(after.token_ids, moby.token_ids);
  EXPECT_GT(moby.done->usage.cached_tokens, 0);
  EXPECT_NE(moby.token_ids, kjv.token_ids);
  std::vector<int32_t> ids;
  for (bool done = false; !done;) {
    const auto message = client->receive(seconds(60));
    ASSERT_TRUE(message);
    if (const auto* delta = std::get_if<comm::Delta>(&*message)) {
      ids.insert(ids.end(), delta->token_ids.begin(), delta->token_ids.end());
    }
    ASSERT_FALSE(std::holds_alternative<comm::Failure>(*message));
    done = std::holds_alternative<comm::Done>(*message);
  }
  ASSERT_LT(ids.size(), undisturbed.size()) << "the first piece was taken by streams()";
  EXPECT_TRUE(std::equal(ids.rbegin(), ids.rend(), undisturbed.rbegin()));
}

}  // namespace
}  // namespace lorikeet::tests
