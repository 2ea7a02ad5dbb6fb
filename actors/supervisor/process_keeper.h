// Starts, hears and ends child processes. The supervisor decides; this carries it out.
#pragma once

#include <condition_variable>
#include <cstdint>
#include <functional>
#include <map>
#include <memory>
#include <mutex>
#include <string>
#include <thread>
#include <vector>

#include "actors/supervisor/region_keeper.h"
#include "actors/wire/control_channel.h"
#include "actors/wire/control_message.h"

namespace lorikeet::actors {

// What the supervisor can do with processes; tests implement it without any.
class Processes {
 public:
  using ChildId = uint64_t;  // never reused

  virtual ~Processes() = default;
  // Starts the head, or a rank that is connected with `head` (0 for the head itself). parent_pid is filled in.
  virtual ChildId spawn(ChildStart start, ChildId head) = 0;
  virtual void tell(ChildId child, const ChildOrder& order) = 0;
  virtual void kill(ChildId child) = 0;  // SIGKILL; gone children are fine
  // Whether somebody has stopped it (SIGSTOP, a debugger), so that it does nothing.
  virtual bool is_stopped(ChildId child) = 0;
  // Whether the kernel has begun to end it, or has ended it: `exited` is about to be called, or being called.
  virtual bool is_ending(ChildId child) = 0;
  virtual std::string describe(ChildId child) = 0;  // for people, such as "process 4711"
  // Whether it is not started yet because no host has room for it.
  virtual bool awaits_host(ChildId) { return false; }
  // Drops the memory that is held for a rank: its next process loads from the checkpoint.
  virtual void drop_regions(int32_t rank) = 0;
};

// The head's ends of its two connections to a rank.
struct HeadEnds {
  Descriptor connection;   // of CAF
  Descriptor descriptors;  // of the channel for descriptors (actors/wire/descriptor_channel.h), for a rank on its host
};

// Each child has a thread that starts it, hears it until it is dead, and reaps it: the kernel kills the child if this
// thread ends (PR_SET_PDEATHSIG), which it does only with the whole process. The memory that ranks leave is held here and
// handed to their successors (actors/supervisor/region_keeper.h).
// Threads: any.
class ProcessKeeper final : public Processes {
 public:
  // Called on the children's threads.
  struct Callbacks {
    std::function<void(ChildId, ChildReport)> said;
    // The last call for a child. how: "exited with status 1", "was killed by signal 9". on_purpose: by kill(). signal: that
    // ended it, else 0.
    std::function<void(ChildId, std::string how, bool on_purpose, int signal)> exited;
    // Takes the head's ends of a new rank's connections; empty: the head is a child of this keeper and gets them.
    std::function<void(ChildId, const ChildStart&, HeadEnds)> connect{};
  };

  // program: run as the children; this program, except in tests.
  explicit ProcessKeeper(Callbacks callbacks, std::string program = "/proc/self/exe")
      : callbacks_(std::move(callbacks)), program_(std::move(program)) {}
  // Kills and reaps all. What the kernel does not end within 10 s is named, and our own process ended with status 1.
  ~ProcessKeeper() override;

  ChildId spawn(ChildStart start, ChildId head) override;
  void tell(ChildId child, const ChildOrder& order) override;
  void kill(ChildId child) override;
  bool is_stopped(ChildId child) override;
  bool is_ending(ChildId child) override;
  std::string describe(ChildId child) override;
  void drop_regions(int32_t rank) override { regions_.drop(rank); }

  const RegionKeeper& regions() const { return regions_; }

  // As tell(), with a descriptor (-1: none), which stays open here.
  void send(ChildId child, const ChildOrder& order, int descriptor);

  // Hands the head, a child of this keeper, its ends of a rank's connections: first the one for descriptors, so that the
  // head has it when the rank says its first word.
  void send_ends(ChildId head, const ChildStart& rank, const HeadEnds& ends);

 private:
  struct Child {
    std::mutex mutex;  // guards what follows; held while its pid is used
    int pid = 0;       // 0: not started yet, or reaped
    bool kill_wanted = false;
    bool killed = false;                      // by us, while it lived
    bool ended = false;                       // reaped, or could not be started: `exited` is about to be called
    std::unique_ptr<ControlChannel> channel;  // set once
    bool begun = false;                       // it has been told what it is to be
    std::vector<ChildOrder> early;            // orders that came before
    std::thread thread;
  };

  void live(ChildId id, Child& child, ChildStart start, ChildId head);
  void not_started(ChildId id, Child& child, const std::string& why);
  Result<void> begin(ControlChannel& channel, ChildStart& start) const;
  bool hear(ControlChannel& channel, int32_t rank, ChildReport& report);
  void forget(ChildId id);
  std::shared_ptr<Child> find(ChildId id);
  int pid_of(ChildId id);  // 0: there is none

  const Callbacks callbacks_;
  const std::string program_;
  RegionKeeper regions_;
  std::mutex mutex_;  // guards what follows
  ChildId last_id_ = 0;
  std::map<ChildId, std::shared_ptr<Child>> children_;  // that have not ended
  std::thread last_ended_;                              // has nothing left to do
  std::condition_variable all_ended_;
};

}  // namespace lorikeet::actors
