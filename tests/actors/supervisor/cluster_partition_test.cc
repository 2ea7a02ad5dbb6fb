// Hosts that are cut off from each other, slow, or gone at the worst moments: every stream ends with the tokens of the
// undisturbed run, or with its error at its deadline.
#include <chrono>
#include <thread>

#include "tests/actors/supervisor/cluster_fixture.h"
#include "tests/launcher/link_proxy.h"

namespace lorikeet::tests {
namespace {

using std::chrono::milliseconds;
using std::chrono::seconds;

class ClusterPartitions : public ClusterTest {
 protected:
  static bool full() { return std::getenv("LORIKEET_FULL") != nullptr; }
  // For how many seconds something is cut off.
  static std::vector<int> pauses() { return full() ? std::vector<int>{1, 5, 60} : std::vector<int>{1}; }

  // A worker whose connections to the head go through a proxy.
  void start_with_proxy(int ranks) {
    network_ = std::make_unique<Network>(3);
    const Network::On head(*network_, 0);
    proxy_ = std::make_unique<LinkProxy>(Network::address(0), 29501);
    start_worker(1);
    start_worker(2, {"--interface", "lan"}, proxy_->port());
    server_ = std::make_unique<Served>(std::vector<std::string>{"--nnodes", "3", "--devices", "none", "--tp",
                                                                std::to_string(ranks), "--cluster-dir",
                                                                (scratch_ / "keys/head").string()});
    ASSERT_TRUE(server_->ready()) << server_->process().err();
  }

  void cut_off(const std::vector<int>& hosts, int pause) {
    for (const int host : hosts) network_->disconnect(host);
    std::this_thread::sleep_for(seconds(pause));
    for (const int host : hosts) network_->connect(host);
  }

  std::unique_ptr<LinkProxy> proxy_;
};

TEST_F(ClusterPartitions, OfOneHostTheHeadOrTwoAtOnceCostNoToken) {
  ASSERT_NO_FATAL_FAILURE(start(2, 2));
  const std::vector<std::vector<int>> cuts = {{2}, {0}, {1, 2}};
  for (const int pause : pauses()) {
    for (const auto& hosts : cuts) expect_the_same_tokens([&] { cut_off(hosts, pause); });
  }
}

// Longer than ten heartbeats: hosts are lost at both ends, their epochs fenced, and they join anew.
TEST_F(ClusterPartitions, ThatAreTakenForLossesCostNoTokenEither) {
  ASSERT_NO_FATAL_FAILURE(start(2, 2));
  const std::vector<std::vector<int>> cuts = {{2}, {0}};
  for (const auto& hosts : cuts) {
    const int before = epoch();
    expect_the_same_tokens([&] {
      for (const int host : hosts) network_->disconnect(host);
      const auto limit = std::chrono::steady_clock::now() + seconds(60);
      while (epoch() == before && std::chrono::steady_clock::now() < limit) {
      }
      EXPECT_GT(epoch(), before) << "the loss was noticed while the host was away";
      for (const int host : hosts) network_->connect(host);
    });
  }
}

TEST_F(ClusterPartitions, OfARanksConnectionAloneCostNoToken) {
  ASSERT_NO_FATAL_FAILURE(start_with_proxy(2));
  ASSERT_EQ(proxy_->connections(), 2U) << "the link, and its rank's";
  for (const int pause : pauses()) {
    expect_the_same_tokens([&] {
      proxy_->hold(proxy_->connections() - 1, true);
      std::this_thread::sleep_for(seconds(pause));
      proxy_->hold(proxy_->connections() - 1, false);
    });
  }
  const int before = epoch();
  expect_the_same_tokens([&] { proxy_->cut(proxy_->connections() - 1); });
  EXPECT_GT(epoch(), before);
}

TEST_F(ClusterPartitions, EndRequestsAtTheirDeadlineWhileAHostIsGone) {
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

TEST_F(ClusterPartitions, SlowLinksCostTimeAlone) {
  ASSERT_NO_FATAL_FAILURE(start_with_proxy(2));
  proxy_->set_delay(milliseconds(5));
  expect_the_same_tokens([&] { network_->slow(2, full() ? "4mbit" : "32mbit"); });
}

TEST_F(ClusterPartitions, AHostThatDiesWhileItJoinsOrLoadsIsWaitedFor) {
  ASSERT_NO_FATAL_FAILURE(start(2, 2));
  expect_the_same_tokens([&] {
    workers_[1]->signal(SIGKILL);
    start_worker(2);
    EXPECT_TRUE(worker().wait_for_err("lending 1 device to")) << worker().err();
    worker().signal(SIGKILL);
    start_worker(2);
    EXPECT_TRUE(worker().wait_for_err("of epoch")) << worker().err();  // "rank 1 of epoch 3 is started"
    worker().signal(SIGKILL);
    start_worker(2);
  });
}

TEST_F(ClusterPartitions, AHostThatDiesWhileAnAdapterLoadsCostsItNothing) {
  const std::string release = (scratch_ / "release").string();
  ASSERT_NO_FATAL_FAILURE(start(2, 2, {"--test-hooks", "hold_adapter_load=kjv,release_file=" + release}));
  const auto client = server_->connect();
  ASSERT_TRUE(client->send(greedy_request("And it came to pass", "kjv", 8)));
  const auto reads = [&] { return server_->status()["queues"]["reading_adapters"] == 1; };
  for (int i = 0; i < 600 && !reads(); ++i) {
  }
  ASSERT_TRUE(reads());
  const int before = epoch();
  workers_[1]->signal(SIGKILL);
  for (int i = 0; i < 600 && epoch() == before; ++i) {
  }
  ASSERT_GT(epoch(), before);
  write_file(release, "");
  start_worker(2);
  const auto answers = collect(*client, 1);
  ASSERT_TRUE(answers[0].done) << (answers[0].failure ? answers[0].failure->message : "no answer");
  EXPECT_EQ(answers[0].token_ids, server_->ask(greedy_request("And it came to pass", "kjv", 8)).token_ids);
}

}  // namespace
}  // namespace lorikeet::tests
