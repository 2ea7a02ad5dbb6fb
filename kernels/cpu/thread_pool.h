// The threads of one rank's CPU kernels.
#pragma once

#include <atomic>
#include <chrono>
#include <condition_variable>
#include <cstdint>
#include <functional>
#include <mutex>
#include <thread>
#include <vector>

namespace lorikeet::kernels {

// Shares loops out in parts that get smaller towards a loop's end (guided self-scheduling, Polychronopoulos and Kuck,
// 1987): cores of shared machines are not equally fast, and who is late takes less. A layer's loops follow each other
// within microseconds, so a thread that has nothing to do looks for the next loop for a while before it sleeps; a
// loop's end waits for those alone who have joined it, and whoever comes once it is closed does not.
// Threads: one thread calls parallel_for at a time, and works on parts itself.
class ThreadPool {
 public:
  // For pools whose threads have a core each.
  static constexpr std::chrono::microseconds kSpin{20};

  // spin: how long a thread looks before it sleeps. 0 where others need the core: several ranks on few cores.
  explicit ThreadPool(int threads, std::chrono::microseconds spin = {});
  ~ThreadPool();
  ThreadPool(const ThreadPool&) = delete;
  ThreadPool& operator=(const ThreadPool&) = delete;

  // Another number of threads, another patience. Not while a loop runs.
  void resize(int threads, std::chrono::microseconds spin);

  int size() const { return static_cast<int>(workers_.size()) + 1; }

  // Calls body(begin, end) for disjoint parts of [0, count), whose inner bounds are multiples of `grain`, in any number
  // of calls by any of the threads; returns when all have returned. body must not throw.
  void parallel_for(int64_t count, int64_t grain, const std::function<void(int64_t, int64_t)>& body);

 private:
  void start(int threads);
  void stop();
  void work(uint64_t seen);
  void open_loop();
  void close_loop();
  bool join_loop(uint64_t seen);
  void leave_loop();
  void run_parts();
  template <class Condition>
  bool spin_until(const Condition& condition) const;

  std::chrono::microseconds spin_;
  std::vector<std::thread> workers_;
  std::mutex mutex_;  // of those who sleep
  std::condition_variable start_, done_;
  std::atomic<bool> stop_{false};

  // Bits 32 to 63: the loop's number. Bit 31: it is open, workers may join it. Bits 0 to 30: those who have joined and
  // not left.
  std::atomic<uint64_t> loop_{0};

  // The loop that is being run: written while nobody has joined, read by those who have.
  const std::function<void(int64_t, int64_t)>* body_ = nullptr;
  int64_t count_ = 0, grain_ = 1, least_ = 1;
  std::atomic<int64_t> next_{0};  // the first index that nobody has taken
};

}  // namespace lorikeet::kernels
