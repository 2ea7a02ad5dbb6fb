// A server under load: hundreds of clients that send, cancel, leave and stop reading.
#include <gtest/gtest.h>
#include <sys/resource.h>

#include <random>
#include <thread>

#include "tests/launcher/served.h"

namespace lorikeet::tests {
namespace {

constexpr int kClients = 512;
constexpr int kThreads = 4;

void allow_many_sockets() {
  rlimit limit = {};
  getrlimit(RLIMIT_NOFILE, &limit);
  limit.rlim_cur = limit.rlim_max;
  setrlimit(RLIMIT_NOFILE, &limit);
}

// One client's life, drawn from a seed: it sends two requests, may cancel one, may leave without its answers.
class LoadClient {
 public:
  LoadClient(const Served& server, unsigned seed) : random_(seed), client_(server.connect()) {
    const std::optional<std::string> adapters[] = {std::nullopt, "shakespeare", "kjv", "moby"};
    for (int i = 0; i < 2; ++i) {
      std::vector<int32_t> prompt(1 + random_() % 60);
      for (int32_t& id : prompt) id = static_cast<int32_t>(random_() % 2000);
      comm::GenerateRequest request = greedy_request("", adapters[random_() % 4], 1 + static_cast<int>(random_() % 24));
      request.prompt.reset();
      request.prompt_token_ids = prompt;
      request.id = std::to_string(i);
      EXPECT_TRUE(client_->send(request).has_value());
      max_tokens_[i] = *request.max_tokens;
    }
    leaves_ = random_() % 8 == 0;
    if (random_() % 4 == 0) {
      cancelled_ = true;
      EXPECT_TRUE(client_->send(comm::Cancel{"0"}).has_value());
    }
  }

  bool leaves() const { return leaves_; }

  // Takes what has come; true when both answers are there.
  bool poll() {
    while (auto message = client_->receive(std::chrono::milliseconds(0))) {
      if (auto* delta = std::get_if<comm::Delta>(&*message)) {
        tokens_[delta->id == "1"] += static_cast<int>(delta->token_ids.size());
      } else if (auto* done = std::get_if<comm::Done>(&*message)) {
        ++answers_[done->id == "1"];
        reasons_[done->id == "1"] = done->finish_reason;
      } else if (auto* failure = std::get_if<comm::Failure>(&*message)) {
        ADD_FAILURE() << failure->code << ": " << failure->message;
        ++answers_[failure->id == "1"];
      }
    }
    return answers_[0] > 0 && answers_[1] > 0;
  }

  void check() const {
    for (int i = 0; i < 2; ++i) {
      EXPECT_EQ(answers_[i], 1);
      if (i == 0 && cancelled_ && reasons_[i] == "abort") continue;
      EXPECT_EQ(reasons_[i], "length");
      EXPECT_EQ(tokens_[i], max_tokens_[i]);
    }
  }

 private:
  std::mt19937 random_;
  std::unique_ptr<comm::ZmqClient> client_;
  int max_tokens_[2] = {}, tokens_[2] = {}, answers_[2] = {};
  std::string reasons_[2];
  bool leaves_ = false, cancelled_ = false;
};

// Runs clients [begin, end) until each has its answers or has left.
void run_clients(const Served& server, int begin, int end) {
  std::vector<std::unique_ptr<LoadClient>> clients;
  for (int i = begin; i < end; ++i) clients.push_back(std::make_unique<LoadClient>(server, static_cast<unsigned>(i)));
  const auto deadline = std::chrono::steady_clock::now() + std::chrono::seconds(1200);
  size_t running = clients.size();
  while (running > 0 && std::chrono::steady_clock::now() < deadline) {
    for (auto& client : clients) {
      if (!client) continue;
      if (client->leaves()) {
        client.reset();
        --running;
      } else if (client->poll()) {
        client->poll();  // a second final answer would have come right behind the first
        client->check();
        client.reset();
        --running;
      }
    }
    std::this_thread::yield();
  }
  EXPECT_EQ(running, 0u);
}

// Polls until no request, block or lease is held: clients that left are noticed by their silence.
nlohmann::json wait_until_idle(const Served& server) {
  nlohmann::json status;
  for (int i = 0; i < 600; ++i) {
    status = server.status();
    int leases = 0;
    for (const auto& adapter : status["adapters"]) leases += adapter["leases"].get<int>();
    const auto& engine = status["engine"];
    if (leases == 0 && engine["waiting"] == 0 && engine["running"] == 0 && engine["preempted"] == 0 &&
        engine["blocks_free"] == engine["blocks_total"]) {
      return nlohmann::json();
    }
    std::this_thread::sleep_for(std::chrono::milliseconds(100));
  }
  return status;
}

uint64_t resident_kib(pid_t pid) {
  const std::string status = read_file("/proc/" + std::to_string(pid) + "/status");
  return std::stoull(status.substr(status.find("VmRSS:") + 6));
}

TEST(Load, GivesEachOf512ClientsExactlyOneAnswerPerRequestAndGetsEverythingBack) {
  allow_many_sockets();
  // Steps of 2,048 tokens under a sanitizer may take longer than the default allows.
  Served server({"--tp", "2", "--max-loras", "2", "--rank-timeout-ms", "600000"});
  ASSERT_TRUE(server.ready()) << server.process().err();
  std::vector<std::thread> threads;
  for (int t = 0; t < kThreads; ++t) {
    threads.emplace_back([&, t] { run_clients(server, t * kClients / kThreads, (t + 1) * kClients / kThreads); });
  }
  for (std::thread& thread : threads) thread.join();
  EXPECT_TRUE(wait_until_idle(server).is_null()) << wait_until_idle(server);
}

TEST(Load, RefusesTheRequestPastTheQueueAtOnce) {
  Served server({"--tp", "1", "--max-num-queued-reqs", "4", "--max-num-seqs", "1"});
  ASSERT_TRUE(server.ready()) << server.process().err();
  std::vector<comm::GenerateRequest> requests(16, greedy_request("The sea", std::nullopt, 64));
  int refused = 0, served = 0;
  for (const Answer& answer : server.ask(requests)) {
    ASSERT_EQ(answer.final_answers, 1);
    served += answer.done ? 1 : 0;
    refused += answer.failure && answer.failure->code == "queue_full" ? 1 : 0;
    if (answer.failure) {
      EXPECT_NE(answer.failure->message.find("4"), std::string::npos) << answer.failure->message;
    }
  }
  EXPECT_EQ(served + refused, 16);
  EXPECT_GE(served, 4);
  EXPECT_GE(refused, 8);
}

TEST(Load, HoldsBoundedMemoryForAClientThatStopsReadingAndServesTheOthers) {
  Served server({"--tp", "1"});
  ASSERT_TRUE(server.ready()) << server.process().err();
  const pid_t head = server.status()["head"]["pid"].get<int>();
  const auto deaf = server.connect();
  for (int i = 0; i < 64; ++i) {
    auto request = greedy_request("The sea", std::nullopt, 400);
    request.logprobs = 20;
    request.id = std::to_string(i);
    EXPECT_TRUE(deaf->send(request).has_value());
  }
  server.ask(greedy_request("warm", std::nullopt, 8));
  const uint64_t before = resident_kib(head);
  for (int round = 0; round < 8; ++round) {
    const Answer other = server.ask(greedy_request("The whale", "moby", 32));
    ASSERT_TRUE(other.done) << (other.failure ? other.failure->message : "no answer");
  }
  EXPECT_LT(resident_kib(head), before + (64u << 10));
}

}  // namespace
}  // namespace lorikeet::tests
