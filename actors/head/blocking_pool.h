// Threads for calls that may block for a long time or for ever, as reading from a mount whose server is gone does.
// Nothing can end such a call, so its thread is left behind and others go on in its stead; there are bounds on both.
//
//   queued --> running --> done                  `finish` is called
//                  |`--> slow --> done           others run in its place meanwhile
//                  `--> given up --> returned    `give_up` is called; what the call returns is dropped
//
// At most one job of a key is here. Threads: any; the callbacks come on the pool's threads, or on that of submit() and
// tick().
#pragma once

#include <chrono>
#include <cstddef>
#include <cstdint>
#include <functional>
#include <memory>
#include <string>
#include <vector>

namespace lorikeet::actors {

class BlockingPool {
 public:
  using TimePoint = std::chrono::steady_clock::time_point;
  using Finish = std::function<void()>;

  struct Limits {
    size_t threads = 4;                    // that work at a time
    size_t blocked_threads = 16;           // beside them: in calls that are slow or given up
    std::chrono::milliseconds slow{1000};  // what a call may take before others may run beside it
    size_t queued_bytes = 64 << 20;        // of jobs that wait for a thread
    uint64_t held_bytes = 0;               // that calls may hold at a time, or one call alone more; 0: no bound
  };
  struct Job {
    std::string key;                  // whom it is for; empty: nobody, and there may be many
    std::chrono::milliseconds limit;  // what the call may take; it waits for its turn as long as others take
    std::function<Finish()> call;     // may block; what it returns is called unless the job is given up
    std::function<void(const std::string&)> give_up;  // with the reason, as the end of a sentence about the call
    uint64_t bytes = 0;  // of memory that the call holds at the most, until it returns or is given up
  };

  explicit BlockingPool(Limits limits);
  // Drops jobs that wait, without a callback; waits for those that run, within their limits.
  ~BlockingPool();
  BlockingPool(const BlockingPool&) = delete;
  BlockingPool& operator=(const BlockingPool&) = delete;

  // Calls give_up at once while an earlier call for the key has not returned, and where too much waits.
  void submit(Job job);

  // True: the key's job had not begun and will not; neither of its callbacks is called.
  bool cancel(const std::string& key);

  // Time passes: gives up what is over its limit. To be called about once a second.
  void tick(TimePoint now);

  std::vector<std::string> left_behind() const;  // keys of the calls that were given up and have not returned

 private:
  struct State;
  static void serve(const std::shared_ptr<State>& state);
  static void add_threads(const std::shared_ptr<State>& state);

  std::shared_ptr<State> state_;  // shared with the threads, which may outlive the pool
};

}  // namespace lorikeet::actors
