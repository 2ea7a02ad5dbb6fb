// What the collectives cost between processes on one host, beside the floor: the same bytes exchanged over a plain TCP
// connection of the loopback, in the same run and turn by turn, since the machine may be noisy.
//
// Every case forks its peers, which do as many operations as this process. Times are medians.
#include <benchmark/benchmark.h>
#include <glog/logging.h>
#include <poll.h>
#include <signal.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <unistd.h>

#include <algorithm>
#include <chrono>
#include <filesystem>
#include <functional>
#include <memory>
#include <thread>
#include <utility>
#include <vector>

#include "bench/comm/loopback.h"
#include "comm/collective/group.h"
#include "tests/comm/collective/file_rendezvous.h"

namespace {

using lorikeet::bench::connected_pair;
using lorikeet::comm::Collective;
using Clock = std::chrono::steady_clock;

double microseconds(Clock::duration time) {
  return std::chrono::duration<double, std::micro>(time).count();
}

double quantile(std::vector<double> values, double q) {
  std::sort(values.begin(), values.end());
  return values[static_cast<size_t>(q * static_cast<double>(values.size() - 1))];
}

// A TCP connection to a peer, in which both send and receive at the same time.
class Link {
 public:
  explicit Link(int fd) : fd_(fd) {}
  ~Link() { close(fd_); }
  Link(const Link&) = delete;
  Link& operator=(const Link&) = delete;

  void exchange(std::vector<char>& out, std::vector<char>& in) {
    size_t sent = 0, received = 0;
    while (sent < out.size() || received < in.size()) {
      pollfd item{fd_, static_cast<short>((sent < out.size() ? POLLOUT : 0) | (received < in.size() ? POLLIN : 0)), 0};
      PCHECK(poll(&item, 1, -1) == 1);
      if ((item.revents & POLLOUT) != 0) {
        const ssize_t n = send(fd_, out.data() + sent, out.size() - sent, MSG_DONTWAIT | MSG_NOSIGNAL);
        if (n > 0) sent += n;
      }
      if ((item.revents & POLLIN) != 0) {
        const ssize_t n = recv(fd_, in.data() + received, in.size() - received, MSG_DONTWAIT);
        CHECK_NE(n, 0) << "the peer is gone";
        if (n > 0) received += n;
      }
    }
  }

 private:
  const int fd_;
};

// Runs one process per rank: `rank_body(rank, fd)`, where fd connects rank 0 with rank 1 (-1 on the others). Rank 0 is
// this process.
void with_peers(int ranks, const std::function<void(int rank, int fd)>& rank_body) {
  const auto [near, far] = connected_pair();
  std::vector<pid_t> peers;
  for (int rank = 1; rank < ranks; ++rank) {
    const pid_t pid = fork();
    PCHECK(pid >= 0);
    if (pid == 0) {
      close(near);
      if (rank != 1) close(far);
      rank_body(rank, rank == 1 ? far : -1);
      _exit(0);
    }
    peers.push_back(pid);
  }
  close(far);
  rank_body(0, near);
  for (pid_t pid : peers) waitpid(pid, nullptr, 0);
}

std::unique_ptr<Collective> join(const std::filesystem::path& directory, int rank, int size) {
  lorikeet::comm::FileRendezvous store(directory);
  lorikeet::comm::GlooOptions options;
  options.rank = rank;
  options.size = size;
  options.prefix = "bench";
  auto collective = lorikeet::comm::make_gloo_collective(store, options);
  CHECK(collective) << collective.error().message;
  return *std::move(collective);
}

// Arguments: ranks, bytes. The floor exchanges the vector between two of the ranks.
void GlooAllReduce(benchmark::State& state) {
  const int ranks = static_cast<int>(state.range(0));
  const size_t bytes = state.range(1);
  const auto rounds = state.max_iterations;
  const lorikeet::tests::TempDir directory;
  std::vector<double> times, floors;
  with_peers(ranks, [&](int rank, int fd) {
    const auto collective = join(directory.path(), rank, ranks);
    const std::unique_ptr<Link> link = fd >= 0 ? std::make_unique<Link>(fd) : nullptr;
    std::vector<float> data(bytes / sizeof(float), 1);
    std::vector<char> out(bytes), in(bytes);
    const auto one_round = [&] {
      collective->barrier();
      const auto floor_begin = Clock::now();
      if (link) link->exchange(out, in);
      const auto floor_end = Clock::now();
      std::fill(data.begin(), data.end(), 1.0F);
      collective->barrier();
      const auto begin = Clock::now();
      collective->all_reduce(data.data(), data.size());
      const auto end = Clock::now();
      CHECK_EQ(data.empty() ? ranks : data.back(), ranks);
      floors.push_back(microseconds(floor_end - floor_begin));
      times.push_back(microseconds(end - begin));
    };
    for (int i = 0; i < 20; ++i) one_round();
    floors.clear();
    times.clear();
    if (rank == 0) {
      for (auto _ : state) {
        one_round();
        state.SetIterationTime(times.back() * 1e-6);
      }
    } else {
      for (benchmark::IterationCount i = 0; i < rounds; ++i) one_round();
    }
    collective->barrier();
  });
  state.counters["p50_us"] = quantile(times, 0.5);
  state.counters["p99_us"] = quantile(times, 0.99);
  state.counters["floor_p50_us"] = quantile(floors, 0.5);
  state.counters["times_floor"] = quantile(times, 0.5) / quantile(floors, 0.5);
}

// A decode step of 1 and 32 sequences at hidden size 5120, a prefill of 256 and 2,048 tokens, and the sizes between.
BENCHMARK(GlooAllReduce)
    ->ArgNames({"ranks", "bytes"})
    ->Args({2, 4 << 10})
    ->Args({2, 20 << 10})
    ->Args({2, 64 << 10})
    ->Args({2, 640 << 10})
    ->Args({2, 5 << 20})
    ->Args({4, 20 << 10})
    ->Args({4, 64 << 10})
    ->Args({4, 256 << 10})
    ->Args({4, 640 << 10})
    ->Args({4, 5 << 20})
    ->Iterations(300)
    ->UseManualTime()
    ->Unit(benchmark::kMicrosecond);

// One process, a thread per rank. Argument: bytes.
void LocalAllReduceOfTwo(benchmark::State& state) {
  const size_t count = state.range(0) / sizeof(float);
  auto ends = lorikeet::comm::make_local_group(2);
  std::thread peer([&, rounds = state.max_iterations] {
    std::vector<float> data(count, 1);
    for (benchmark::IterationCount i = 0; i < rounds; ++i) ends[1]->all_reduce(data.data(), count);
  });
  std::vector<float> data(count, 1);
  for (auto _ : state) ends[0]->all_reduce(data.data(), count);
  peer.join();
}
BENCHMARK(LocalAllReduceOfTwo)
    ->Arg(20 << 10)
    ->Arg(640 << 10)
    ->Iterations(2000)
    ->UseRealTime()
    ->Unit(benchmark::kMicrosecond);

}  // namespace
