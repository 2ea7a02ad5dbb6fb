// Ranks of a host that cannot be started yet: finds out whether the host has the checkpoint, and if not, fetches the ranks'
// part from the head.
#pragma once

#include <chrono>
#include <condition_variable>
#include <cstdint>
#include <functional>
#include <list>
#include <memory>
#include <mutex>
#include <string>
#include <thread>
#include <vector>

#include "actors/supervisor/checkpoint_fetch.h"
#include "actors/wire/control_message.h"

namespace lorikeet::actors {

// Fetches for one rank after the other; what fails is tried again, with growing pauses, for as long as the head wants the
// rank. All ranks are started when the last fetch is done, since a file that changes while a rank loads it is an error to
// that rank.
// Threads: any.
class RankFetches {
 public:
  static constexpr std::chrono::milliseconds kFirstPause{200}, kMostPause{5'000};

  // Called on its thread; none of them may call back.
  struct Callbacks {
    std::function<void(uint64_t child, ChildStart start)> ready;             // options.model is where its part is
    std::function<void(uint64_t child, const std::string& why)> impossible;  // it is forgotten
    std::function<void(const std::string&)> progress;                        // for people
    // Whether the host has a checkpoint to start the rank from. Blocks on the disk.
    std::function<bool(const ChildStart& start)> has_own = [](const ChildStart&) { return false; };
  };
  struct State {
    uint64_t child = 0;
    std::string description;  // for people
  };

  // fetcher outlives it.
  RankFetches(CheckpointFetcher& fetcher, CheckpointFetcher::Dial dial, Callbacks callbacks);
  ~RankFetches();

  void add(uint64_t child, ChildStart start);
  bool remove(uint64_t child);  // false: it is none of these, or no longer
  std::vector<State> states() const;

 private:
  struct Job {
    uint64_t child = 0;
    ChildStart start;
    FetchStop stop;
    bool is_there = false;
    std::string folder;            // where its part is; empty: the host has its own checkpoint
    uint64_t done = 0, total = 0;  // bytes
    std::string failure;           // the last one
  };

  void run();
  void prepare(const std::shared_ptr<Job>& job);
  void fetch(const std::shared_ptr<Job>& job);
  std::shared_ptr<Job> next() const;

  CheckpointFetcher& fetcher_;
  const CheckpointFetcher::Dial dial_;
  const Callbacks callbacks_;
  mutable std::mutex mutex_;  // guards what follows
  std::list<std::shared_ptr<Job>> jobs_;
  bool stopping_ = false;
  std::condition_variable changed_;
  std::thread thread_;
};

}  // namespace lorikeet::actors
