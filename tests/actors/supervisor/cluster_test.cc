// One model over several hosts: a head on one, each rank on another, killed and cut off.
#include <gtest/gtest.h>
#include <signal.h>

#include <cstdlib>
#include <memory>
#include <optional>
#include <thread>

#include "tests/launcher/network.h"
#include "tests/launcher/served.h"

namespace lorikeet::tests {
namespace {

using std::chrono::seconds;

// A head that lends no devices, and workers with one each.
class ClusterTest : public ::testing::Test {
 protected:
  void SetUp() override {
    if (const std::string why = Network::why_not(); !why.empty()) {
      if (std::getenv("LORIKEET_REQUIRE_NETWORKS") != nullptr) FAIL() << why;
      GTEST_SKIP() << why;
    }
    const Finished keys = run_lorikeet({"keygen", "--cluster", (scratch_ / "keys").string()});
    ASSERT_EQ(keys.status, 0) << keys.err;
  }

  void start(int workers, int ranks, std::vector<std::string> more = {}) {
    network_ = std::make_unique<Network>(workers + 1);
    for (int host = 1; host <= workers; ++host) start_worker(host);
    std::vector<std::string> flags = {
        "--nnodes", std::to_string(workers + 1), "--devices",     "none",
        "--tp",     std::to_string(ranks),       "--cluster-dir", (scratch_ / "keys/head").string()};
    flags.insert(flags.end(), more.begin(), more.end());
    const Network::On head(*network_, 0);
    server_ = std::make_unique<Served>(flags);
    ASSERT_TRUE(server_->ready()) << server_->process().err() << workers_[0]->err();
  }

  void start_worker(int host, const std::vector<std::string>& more = {}) {
    std::vector<std::string> arguments = {"worker",
                                          "--join",
                                          Network::address(0) + ":29501",
                                          "--device",
                                          "cpu",
                                          "--cluster-dir",
                                          (scratch_ / "keys/worker").string(),
                                          "--node-name",
                                          "host" + std::to_string(host)};
    arguments.insert(arguments.end(), more.begin(), more.end());
    const Network::On there(*network_, host);
    workers_.push_back(std::make_unique<Process>(arguments, scratch_, "worker" + std::to_string(workers_.size())));
  }

  // Six requests, greedy and drawn, of the base model and of two adapters.
  static std::vector<comm::GenerateRequest> requests(int tokens) {
    std::vector<comm::GenerateRequest> all;
    for (const char* adapter : {"", "moby", "kjv"}) {
      auto request =
          greedy_request("Call me", *adapter != 0 ? std::optional<std::string>(adapter) : std::nullopt, tokens);
      request.ignore_eos = true;
      all.push_back(request);
      request.temperature = 1;
      request.seed = 7;
      all.push_back(request);
    }
    return all;
  }

  // Sends requests, does something once all stream, and expects every token of the undisturbed run, once.
  template <class Disturbance>
  void expect_the_same_tokens(Disturbance disturb) {
    const auto wanted = requests(150);
    const auto undisturbed = server_->ask(wanted);
    const auto client = server_->connect();
    std::vector<std::vector<int32_t>> begun(wanted.size());
    for (size_t i = 0; i < wanted.size(); ++i) {
      auto request = wanted[i];
      request.id = std::to_string(i);
      ASSERT_TRUE(client->send(request));
    }
    for (size_t waiting = wanted.size(); waiting > 0;) {
      const auto message = client->receive(seconds(60));
      ASSERT_TRUE(message && std::holds_alternative<comm::Delta>(*message));
      const auto& delta = std::get<comm::Delta>(*message);
      auto& tokens = begun.at(std::stoul(delta.id));
      waiting -= tokens.empty();
      tokens.insert(tokens.end(), delta.token_ids.begin(), delta.token_ids.end());
    }
    disturb();
    const auto answers = collect(*client, wanted.size());
    for (size_t i = 0; i < wanted.size(); ++i) {
      ASSERT_TRUE(undisturbed[i].done);
      ASSERT_TRUE(answers[i].done) << i << ": " << (answers[i].failure ? answers[i].failure->message : "no answer\n")
                                   << server_->process().err();
      EXPECT_EQ(answers[i].final_answers, 1);
      std::vector<int32_t> tokens = begun[i];
      tokens.insert(tokens.end(), answers[i].token_ids.begin(), answers[i].token_ids.end());
      EXPECT_EQ(tokens, undisturbed[i].token_ids) << "request " << i;
    }
  }

  int pid_of(int rank) const { return server_->status()["ranks"][static_cast<size_t>(rank)]["pid"].get<int>(); }
  int epoch() const { return server_->status()["epoch"].get<int>(); }

  ScratchDirectory scratch_;
  std::unique_ptr<Network> network_;
  std::vector<std::unique_ptr<Process>> workers_;
  std::unique_ptr<Served> server_;  // ends first
};

TEST_F(ClusterTest, AnswersAsOneHostDoesWithEachRankOnAHostOfItsOwn) {
  const auto golden = golden_generate_requests(read_golden());
  const Served alone({"--tp", "2"});
  ASSERT_TRUE(alone.ready());
  const auto expected = alone.ask(golden);
  ASSERT_NO_FATAL_FAILURE(start(2, 2));
  const auto answers = server_->ask(golden);
  for (size_t i = 0; i < golden.size(); ++i) {
    ASSERT_TRUE(expected[i].done && answers[i].done) << i;
    EXPECT_EQ(answers[i].token_ids, expected[i].token_ids) << "case " << i;
  }
  EXPECT_NE(server_->process().err().find("host2  10.77.0.3"), std::string::npos) << server_->process().err();
  server_->process().signal(SIGTERM);
  EXPECT_EQ(server_->process().wait(), 0);
  for (const auto& worker : workers_) {
    EXPECT_TRUE(worker->running()) << "it survives the head";
    EXPECT_TRUE(wait_until_gone(descendants_of(worker->pid()))) << "and leaves no rank behind";
  }
}

TEST_F(ClusterTest, GoesOnWhenARankOfAnotherHostIsKilled) {
  ASSERT_NO_FATAL_FAILURE(start(2, 2));
  for (const int rank : {0, 1}) {
    const int before = epoch();
    expect_the_same_tokens([&] { kill(pid_of(rank), SIGKILL); });
    // The broken link and the death are told by different hosts, so that a death can cost two epochs.
    EXPECT_GT(epoch(), before);
  }
}

TEST_F(ClusterTest, GoesOnWhenALostWorkerComesBack) {
  ASSERT_NO_FATAL_FAILURE(start(2, 2));
  const int before = epoch();
  expect_the_same_tokens([&] {
    workers_[1]->signal(SIGKILL);
    start_worker(2);
  });
  EXPECT_GT(epoch(), before);
}

TEST_F(ClusterTest, GoesOnOnAnotherHostThatHasRoom) {
  ASSERT_NO_FATAL_FAILURE(start(2, 1));
  const size_t with_rank = descendants_of(workers_[0]->pid()).empty() ? 1 : 0;
  expect_the_same_tokens([&] { workers_[with_rank]->signal(SIGKILL); });
  EXPECT_FALSE(descendants_of(workers_[1 - with_rank]->pid()).empty());
}

TEST_F(ClusterTest, GoesOnAfterAPartitionOfAHost) {
  ASSERT_NO_FATAL_FAILURE(start(2, 2));
  const bool full = std::getenv("LORIKEET_FULL") != nullptr;
  for (const int pause : full ? std::vector<int>{1, 5} : std::vector<int>{1}) {
    expect_the_same_tokens([&] {
      network_->disconnect(2);
      std::this_thread::sleep_for(seconds(pause));
      network_->connect(2);
    });
  }
}

TEST_F(ClusterTest, EndsRequestsAtTheirDeadlineWhileAHostIsGone) {
  ASSERT_NO_FATAL_FAILURE(start(2, 2, {"--request-timeout", "3"}));
  network_->disconnect(2);
  const Answer answer = server_->ask(requests(1500).front());
  ASSERT_TRUE(answer.failure);
  EXPECT_EQ(answer.failure->code, "timed_out") << answer.failure->message;
  network_->connect(2);
  Answer again;
  for (int tries = 0; tries < 10 && !again.done; ++tries) {
    again = server_->ask(greedy_request("Call me", std::nullopt, 8));
  }
  EXPECT_TRUE(again.done) << server_->process().err();
}

TEST_F(ClusterTest, LetsAWorkerServeTheNextHead) {
  ASSERT_NO_FATAL_FAILURE(start(1, 1));
  server_->process().signal(SIGKILL);
  server_->process().wait();
  const Network::On head(*network_, 0);
  server_ = std::make_unique<Served>(std::vector<std::string>{"--nnodes", "2", "--devices", "none", "--cluster-dir",
                                                              (scratch_ / "keys/head").string()});
  ASSERT_TRUE(server_->ready()) << server_->process().err();
  EXPECT_TRUE(server_->ask(greedy_request("Call me", std::nullopt, 8)).done);
}

TEST_F(ClusterTest, ShowsThePlacementWithoutStartingAnything) {
  network_ = std::make_unique<Network>(2);
  start_worker(1, {"--devices", "0,1"});
  std::vector<std::string> arguments = {"serve"};
  arguments.insert(arguments.end(), example_flags().begin(), example_flags().end());
  for (const char* word : {"--nnodes", "2", "--devices", "none", "--tp", "2", "--dry-run", "--cluster-dir"}) {
    arguments.emplace_back(word);
  }
  arguments.push_back((scratch_ / "keys/head").string());
  const Network::On head(*network_, 0);
  const Finished run = run_lorikeet(arguments);
  EXPECT_EQ(run.status, 0) << run.err;
  EXPECT_EQ(run.out,
            "rank  host   address    device\n"
            "   0  host1  10.77.0.2  cpu 0\n"
            "   1  host1  10.77.0.2  cpu 1\n");
}

}  // namespace
}  // namespace lorikeet::tests
