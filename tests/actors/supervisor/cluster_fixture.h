// One model over several hosts for tests: network namespaces, a head on one, each rank on another.
#pragma once

#include <fmt/format.h>
#include <gtest/gtest.h>
#include <signal.h>

#include <chrono>
#include <cstdlib>
#include <filesystem>
#include <future>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "tests/launcher/network.h"
#include "tests/launcher/served.h"

namespace lorikeet::tests {

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

  // of_workers: flags of all of them.
  void start(int workers, int ranks, std::vector<std::string> more = {}, std::vector<std::string> of_workers = {}) {
    network_.reset();  // its names are the same
    network_ = std::make_unique<Network>(workers + 1);
    undisturbed_.clear();
    for (int host = 1; host <= workers; ++host) start_worker(host, of_workers);
    std::vector<std::string> flags = {
        "--nnodes", std::to_string(workers + 1), "--devices",     "none",
        "--tp",     std::to_string(ranks),       "--cluster-dir", (scratch_ / "keys/head").string()};
    flags.insert(flags.end(), more.begin(), more.end());
    const Network::On head(*network_, 0);
    server_ = std::make_unique<Served>(flags);
    ASSERT_TRUE(server_->ready()) << server_->process().err() << workers_[0]->err();
  }

  // port: the head's, or that of a proxy for it.
  void start_worker(int host, const std::vector<std::string>& more = {}, int port = 29501) {
    std::vector<std::string> arguments = {"worker",
                                          "--join",
                                          fmt::format("{}:{}", Network::address(0), port),
                                          "--device",
                                          "cpu",
                                          "--cluster-dir",
                                          (scratch_ / "keys/worker").string(),
                                          "--download-dir",
                                          downloads(host).string(),
                                          "--node-name",
                                          "host" + std::to_string(host)};
    arguments.insert(arguments.end(), more.begin(), more.end());
    const Network::On there(*network_, host);
    std::optional<Network::Hidden> hidden;
    if (!hidden_from_workers_.empty()) hidden.emplace(hidden_from_workers_);
    workers_.push_back(std::make_unique<Process>(arguments, scratch_, "worker" + std::to_string(workers_.size())));
  }

  std::filesystem::path downloads(int host) const { return scratch_ / fmt::format("downloads{}", host); }
  Process& worker() const { return *workers_.back(); }

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
    if (undisturbed_.empty()) undisturbed_ = server_->ask(wanted);
    const auto client = server_->connect();
    std::vector<std::vector<int32_t>> begun(wanted.size());
    for (size_t i = 0; i < wanted.size(); ++i) {
      auto request = wanted[i];
      request.id = std::to_string(i);
      ASSERT_TRUE(client->send(request));
    }
    for (size_t waiting = wanted.size(); waiting > 0;) {
      const auto message = client->receive(std::chrono::seconds(60));
      ASSERT_TRUE(message && std::holds_alternative<comm::Delta>(*message));
      const auto& delta = std::get<comm::Delta>(*message);
      auto& tokens = begun.at(std::stoul(delta.id));
      waiting -= tokens.empty();
      tokens.insert(tokens.end(), delta.token_ids.begin(), delta.token_ids.end());
    }
    // Read meanwhile: a client that does not for a minute is taken for gone.
    auto collected = std::async(std::launch::async, [&] { return collect(*client, wanted.size(), 240); });
    disturb();
    const auto answers = collected.get();
    for (size_t i = 0; i < wanted.size(); ++i) {
      ASSERT_TRUE(undisturbed_[i].done);
      ASSERT_TRUE(answers[i].done) << i << ": " << (answers[i].failure ? answers[i].failure->message : "no answer\n")
                                   << server_->process().err();
      EXPECT_EQ(answers[i].final_answers, 1);
      std::vector<int32_t> tokens = begun[i];
      tokens.insert(tokens.end(), answers[i].token_ids.begin(), answers[i].token_ids.end());
      EXPECT_EQ(tokens, undisturbed_[i].token_ids) << "request " << i;
    }
  }

  int pid_of(int rank) const { return server_->status()["ranks"][static_cast<size_t>(rank)]["pid"].get<int>(); }
  int epoch() const { return server_->status()["epoch"].get<int>(); }

  TempDir scratch_;
  std::filesystem::path hidden_from_workers_;  // a directory; those that are started from now on do not see it
  std::unique_ptr<Network> network_;
  std::vector<std::unique_ptr<Process>> workers_;
  std::vector<Answer> undisturbed_;  // of requests(150), by the present server
  std::unique_ptr<Served> server_;   // ends first
};

}  // namespace lorikeet::tests
