// Failures that only show between processes: whole servers, killed and stopped.
#include <gtest/gtest.h>
#include <signal.h>

#include <filesystem>
#include <optional>
#include <set>

#include "tests/launcher/served.h"

namespace lorikeet::tests {
namespace {

using std::chrono::seconds;

int pid_of(const nlohmann::json& status, int rank) {
  return status["ranks"][static_cast<size_t>(rank)]["pid"].get<int>();
}

// Waits until a request streams, and takes its tokens so far; nullopt if it ended or nothing came.
std::optional<std::vector<int32_t>> first_tokens(comm::ZmqClient& client) {
  const auto message = client.receive(seconds(60));
  if (!message || !std::holds_alternative<comm::Delta>(*message)) return std::nullopt;
  return std::get<comm::Delta>(*message).token_ids;
}

bool streams(comm::ZmqClient& client) {
  return first_tokens(client).has_value();
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

// A client's requests that stream while something happens to the ranks: of the base model and of two adapters, greedy
// and drawn. Each must get every token that it gets in peace, once.
class Streams {
 public:
  explicit Streams(const Served& server) {
    for (const char* adapter : {"", "moby", "kjv"}) {
      comm::GenerateRequest request = long_request();
      request.max_tokens = 400;
      if (*adapter != 0) request.adapter = adapter;
      requests_.push_back(request);
      request.temperature = 1;
      request.seed = 7;
      request.presence_penalty = 0.5F;
      request.logit_bias = {{5, 3}, {300, -4}};
      request.bad_words = {"the", " of the"};
      request.min_tokens = 400;
      request.ignore_eos = false;
      requests_.push_back(request);
    }
    undisturbed_ = server.ask(requests_);
    client_ = server.connect();  // now: a server forgets who has been silent for long
  }

  // Sends them, and returns when each has tokens.
  void begin() {
    begun_.assign(requests_.size(), {});
    for (size_t i = 0; i < requests_.size(); ++i) {
      requests_[i].id = std::to_string(i);
      ASSERT_TRUE(client_->send(requests_[i]));
    }
    for (size_t waiting = requests_.size(); waiting > 0;) {
      const auto message = client_->receive(seconds(60));
      ASSERT_TRUE(message && std::holds_alternative<comm::Delta>(*message));
      const auto& delta = std::get<comm::Delta>(*message);
      std::vector<int32_t>& tokens = begun_.at(std::stoul(delta.id));
      waiting -= tokens.empty();
      tokens.insert(tokens.end(), delta.token_ids.begin(), delta.token_ids.end());
    }
  }

  void expect_the_same() {
    const auto answers = collect(*client_, requests_.size());
    for (size_t i = 0; i < answers.size(); ++i) {
      ASSERT_TRUE(answers[i].done) << i << ": " << (answers[i].failure ? answers[i].failure->message : "no answer");
      EXPECT_EQ(answers[i].final_answers, 1);
      std::vector<int32_t> tokens = begun_[i];
      tokens.insert(tokens.end(), answers[i].token_ids.begin(), answers[i].token_ids.end());
      EXPECT_EQ(tokens, undisturbed_[i].token_ids) << "request " << i;
      EXPECT_LT(begun_[i].size(), tokens.size()) << "nothing was left to do when it happened";
    }
  }

 private:
  std::unique_ptr<comm::ZmqClient> client_;
  std::vector<comm::GenerateRequest> requests_;
  std::vector<Answer> undisturbed_;
  std::vector<std::vector<int32_t>> begun_;
};

TEST(Processes, LetEveryStreamGoOnWhenARankIsKilled) {
  Served server({"--tp", "2"});
  ASSERT_TRUE(server.ready()) << server.process().err();
  Streams streams(server);
  for (const int rank : {0, 1}) {
    const auto before = server.status();
    ASSERT_NO_FATAL_FAILURE(streams.begin());
    kill(pid_of(before, rank), SIGKILL);
    ASSERT_NO_FATAL_FAILURE(streams.expect_the_same());
    const auto after = server.status();
    EXPECT_EQ(after["epoch"].get<int>(), before["epoch"].get<int>() + 1) << after["last_pauses"] << "\n"
                                                                         << server.process().err();
    EXPECT_EQ(after["head"]["pid"], before["head"]["pid"]) << "the head and its clients are left alone";
    EXPECT_NE(pid_of(after, rank), pid_of(before, rank));
    EXPECT_EQ(pid_of(after, 1 - rank), pid_of(before, 1 - rank)) << "who survives stays";
    EXPECT_GT(before["ranks"][static_cast<size_t>(rank)]["weight_bytes_read"].get<uint64_t>(), 0U);
    EXPECT_EQ(after["ranks"][static_cast<size_t>(rank)]["weight_bytes_read"], 0) << "its weights were still there";
    EXPECT_EQ(after["ranks"][static_cast<size_t>(rank)]["weight_bytes"],
              before["ranks"][static_cast<size_t>(rank)]["weight_bytes"]);
    EXPECT_EQ(after["engine"]["resumptions"].get<int>(), before["engine"]["resumptions"].get<int>() + 6);
    EXPECT_EQ(after["engine"]["recomputed_tokens"], 0) << "its KV cache was, too";
    EXPECT_EQ(after["engine"]["blocks_free"], after["engine"]["blocks_total"]);
    for (const auto& adapter : after["adapters"]) {
      EXPECT_EQ(adapter["leases"], 0) << adapter;
      EXPECT_EQ(adapter["claims"], 0) << adapter;
    }
  }
}

TEST(Processes, LetEveryStreamGoOnWhenARankIsKilledWhileTheyComeBack) {
  Served server({"--tp", "2"});
  ASSERT_TRUE(server.ready()) << server.process().err();
  Streams streams(server);
  ASSERT_NO_FATAL_FAILURE(streams.begin());
  kill(pid_of(server.status(), 1), SIGKILL);
  nlohmann::json coming = server.status();  // of the next epoch, as soon as its rank 1 is known
  for (int i = 0; i < 600 && (coming["epoch"] != 2 || pid_of(coming, 1) == 0); ++i) coming = server.status();
  ASSERT_EQ(coming["epoch"], 2);
  kill(pid_of(coming, 1), SIGKILL);
  ASSERT_NO_FATAL_FAILURE(streams.expect_the_same());
}

TEST(Processes, NoticeARankThatIsStopped) {
  Served server({"--tp", "2", "--heartbeat-ms", "100"});
  ASSERT_TRUE(server.ready()) << server.process().err();
  Streams streams(server);
  const int stopped = pid_of(server.status(), 1);
  ASSERT_NO_FATAL_FAILURE(streams.begin());
  kill(stopped, SIGSTOP);
  ASSERT_NO_FATAL_FAILURE(streams.expect_the_same());
  EXPECT_FALSE(is_alive(stopped));
}

TEST(Processes, NoticeARankWhoseStepHangs) {
  // Heartbeats are slow here, so that the watchdogs of the steps are what notices.
  Served server({"--tp", "2", "--heartbeat-ms", "60000", "--rank-timeout-ms", "2000"});
  ASSERT_TRUE(server.ready()) << server.process().err();
  Streams streams(server);
  const int stopped = pid_of(server.status(), 1);
  ASSERT_NO_FATAL_FAILURE(streams.begin());
  kill(stopped, SIGSTOP);
  ASSERT_NO_FATAL_FAILURE(streams.expect_the_same());
  EXPECT_FALSE(is_alive(stopped));
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
  TempDir scratch;
  const auto model = source_path("examples/models/tiny-qwen2-gptq-int4");
  std::filesystem::copy(model, scratch / "model");
  std::filesystem::resize_file(scratch / "model/model.safetensors",
                               std::filesystem::file_size(model / "model.safetensors") / 2);
  const Finished run = run_lorikeet({"serve", "--model", (scratch / "model").string(), "--tp", "2", "--device", "cpu",
                                     "--no-http", "--zmq", "ipc://" + (scratch / "zmq").string()});
  EXPECT_EQ(run.status, 1);
  EXPECT_NE(run.err.find("model.safetensors"), std::string::npos) << run.err;
}

TEST(Processes, ServeARequestWhoseAdapterWasOnItsWayWhenARankDied) {
  TempDir scratch;
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

TEST(Processes, HoldUpOnlyRequestsOfAnAdapterWhoseDiskDoesNotAnswer) {
  TempDir scratch;
  const std::string release = (scratch / "release").string();
  Served server({"--test-hooks", "hold_adapter_check=kjv,release_file=" + release});
  ASSERT_TRUE(server.ready()) << server.process().err();
  const auto client = server.connect();
  ASSERT_TRUE(client->send(greedy_request("And it came to pass", "kjv", 8)));
  expect_answer(server, "moby");
  EXPECT_EQ(server.status()["queues"]["reading_adapters"], 1);
  write_file(release, "");
  const auto answers = collect(*client, 1);
  ASSERT_TRUE(answers[0].done) << (answers[0].failure ? answers[0].failure->message : "no answer");
}

// Two versions whose files have the same sizes and times, as reproducible archives leave them.
TEST(Processes, GiveAnotherVersionOfTheSameSizeAndTimeToNewRequests) {
  TempDir scratch;
  const auto write = [](const std::filesystem::path& path, const std::string& content) {
    write_file(path, content);
    std::filesystem::last_write_time(path, std::filesystem::file_time_type());
  };
  const auto kjv = source_path("examples/models/adapters/kjv");
  const std::string config = read_file(kjv / "adapter_config.json");
  std::string stronger = config;
  stronger.replace(config.find("\"lora_alpha\": 16"), 16, "\"lora_alpha\": 96");
  for (const char* version : {"v1", "v2"}) {
    std::filesystem::create_directory(scratch / version);
    write(scratch / version / "adapter_config.json", version == std::string("v1") ? config : stronger);
    write(scratch / version / "adapter_model.safetensors", read_file(kjv / "adapter_model.safetensors"));
  }
  std::filesystem::create_directory_symlink("v1", scratch / "current");
  Served server({"--lora-modules", "current=" + (scratch / "current").string(), "v2=" + (scratch / "v2").string()});
  ASSERT_TRUE(server.ready()) << server.process().err();
  const auto ask = [&](const std::string& adapter) {
    return server.ask(greedy_request("And it came to pass in those days, that", adapter, 24)).token_ids;
  };
  const auto first = ask("kjv"), second = ask("v2");
  EXPECT_NE(first, second);
  EXPECT_EQ(ask("current"), first);
  std::filesystem::create_directory_symlink("v2", scratch / "next");
  std::filesystem::rename(scratch / "next", scratch / "current");
  EXPECT_EQ(ask("current"), second) << "the link names the other version";
  write(scratch / "v2/adapter_config.json", config);
  EXPECT_EQ(ask("current"), first) << "written in place";
  write(scratch / "renamed", stronger);
  std::filesystem::rename(scratch / "renamed", scratch / "v2/adapter_config.json");
  EXPECT_EQ(ask("current"), second) << "replaced by renaming";
}

TEST(Processes, GiveReplacedAdaptersToNewRequestsOnly) {
  TempDir scratch;
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
