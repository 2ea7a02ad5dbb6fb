// One model over several hosts: served, killed, brought back, given its checkpoint.
#include <sys/mount.h>

#include <chrono>
#include <cstdio>
#include <thread>

#include "tests/actors/supervisor/cluster_fixture.h"

namespace lorikeet::tests {
namespace {

const std::filesystem::path kModel = source_path("examples/models/tiny-qwen2-gptq-int4");

// The model is on the head's host alone.
class ClusterDownloads : public ClusterTest {
 protected:
  bool wait_for_share(int percent) const;
};

TEST_F(ClusterDownloads, LetEachRankOnAHostOfItsOwnAnswerAsOneHostDoes) {
  const auto golden = golden_generate_requests(read_golden());
  for (const int ranks : {2, 4}) {
    const auto expected = [&] {
      const Served alone({"--tp", std::to_string(ranks)});
      return alone.ready() ? alone.ask(golden) : std::vector<Answer>(golden.size());
    }();
    server_.reset();
    workers_.clear();
    hidden_from_workers_ = kModel;
    ASSERT_NO_FATAL_FAILURE(start(ranks, ranks));
    const auto answers = server_->ask(golden);
    for (size_t i = 0; i < golden.size(); ++i) {
      ASSERT_TRUE(expected[i].done && answers[i].done) << i;
      EXPECT_EQ(answers[i].token_ids, expected[i].token_ids) << "case " << i;
    }
    EXPECT_NE(server_->process().err().find("host2  10.77.0.3"), std::string::npos) << server_->process().err();
    for (const auto& worker : workers_) {
      EXPECT_NE(worker->err().find("has its part of the checkpoint"), std::string::npos) << worker->err();
    }
    server_->process().signal(SIGTERM);
    EXPECT_EQ(server_->process().wait(), 0);
    for (const auto& worker : workers_) {
      EXPECT_TRUE(worker->running()) << "it survives the head";
      EXPECT_TRUE(wait_until_gone(descendants_of(worker->pid()))) << "and leaves no rank behind";
    }
  }
}

// Waits until the latest worker has got so much of its part, in per cent.
bool ClusterDownloads::wait_for_share(int percent) const {
  const std::string begin = "gets its part of the checkpoint: ";
  const auto end = std::chrono::steady_clock::now() + std::chrono::seconds(60);
  while (std::chrono::steady_clock::now() < end) {
    const std::string said = worker().err();
    const size_t last = said.rfind(begin);
    if (last != std::string::npos && std::atoi(said.c_str() + last + begin.size()) >= percent) return true;
    std::this_thread::sleep_for(std::chrono::milliseconds(5));  // a file has no event to wait for
  }
  return false;
}

TEST_F(ClusterDownloads, GoOnWhereTheyWereTorn) {
  ASSERT_NO_FATAL_FAILURE(start(2, 1));
  const int with_rank = descendants_of(workers_[0]->pid()).empty() ? 2 : 1, other = 3 - with_rank;
  hidden_from_workers_ = kModel;
  workers_[static_cast<size_t>(other - 1)]->signal(SIGKILL);
  network_->slow(other, "24mbit");
  start_worker(other);
  expect_the_same_tokens([&] {
    workers_[static_cast<size_t>(with_rank - 1)]->signal(SIGKILL);
    EXPECT_TRUE(wait_for_share(50)) << worker().err();
    worker().signal(SIGKILL);
    network_->slow(other, "");
    start_worker(other);
    EXPECT_TRUE(worker().wait_for_err("has its part of the checkpoint")) << worker().err();
  });
  // "rank 0 has its part of the checkpoint: 10.3 MiB, of which 5.1 came now"
  const std::string said = worker().err();
  double all = 0, now = 0;
  ASSERT_EQ(sscanf(said.c_str() + said.find("has its part"), "has its part of the checkpoint: %lf MiB, of which %lf",
                   &all, &now),
            2)
      << said;
  EXPECT_LT(now, all * 2 / 3);
  EXPECT_GT(now, 0);
}

TEST_F(ClusterDownloads, SayThatADiskIsFullAndGoOnOnceItIsNot) {
  ASSERT_NO_FATAL_FAILURE(start(2, 1));
  const int with_rank = descendants_of(workers_[0]->pid()).empty() ? 2 : 1, other = 3 - with_rank;
  workers_[static_cast<size_t>(other - 1)]->signal(SIGKILL);
  std::filesystem::create_directory(downloads(other));
  ASSERT_EQ(mount("none", downloads(other).c_str(), "tmpfs", 0, "size=4m"), 0);
  hidden_from_workers_ = kModel;
  start_worker(other);
  expect_the_same_tokens([&] {
    workers_[static_cast<size_t>(with_rank - 1)]->signal(SIGKILL);
    EXPECT_TRUE(worker().wait_for_err("No space left on device; it is tried again")) << worker().err();
    EXPECT_EQ(mount("none", downloads(other).c_str(), "tmpfs", MS_REMOUNT, "size=64m"), 0);
  });
  worker().signal(SIGKILL);
  worker().wait();
  wait_until_gone(descendants_of(worker().pid()));
  EXPECT_EQ(umount2(downloads(other).c_str(), MNT_DETACH), 0);
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
