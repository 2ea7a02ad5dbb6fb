// The threads of one rank's CPU kernels.
#pragma once

#include <condition_variable>
#include <cstdint>
#include <functional>
#include <mutex>
#include <thread>
#include <vector>

namespace lorikeet::kernels {

// Cuts loops into one part per thread. Idle threads sleep: ranks may share cores, so nothing ever spins.
// Threads: one thread calls parallel_for at a time, and works on a part itself.
class ThreadPool {
 public:
  explicit ThreadPool(int threads);
  ~ThreadPool();
  ThreadPool(const ThreadPool&) = delete;
  ThreadPool& operator=(const ThreadPool&) = delete;

  int size() const { return static_cast<int>(workers_.size()) + 1; }

  // Calls body(begin, end) for disjoint parts of [0, count), whose inner bounds are multiples of `grain`; returns when
  // all have returned. body must not throw.
  void parallel_for(int64_t count, int64_t grain, const std::function<void(int64_t, int64_t)>& body);

 private:
  void work(int index);
  void run_part(int index) const;

  std::vector<std::thread> workers_;
  std::mutex mutex_;
  std::condition_variable start_, done_;
  uint64_t generation_ = 0;
  int running_ = 0;
  bool stop_ = false;

  // The loop that is being run.
  const std::function<void(int64_t, int64_t)>* body_ = nullptr;
  int64_t count_ = 0, grain_ = 1;
};

}  // namespace lorikeet::kernels
