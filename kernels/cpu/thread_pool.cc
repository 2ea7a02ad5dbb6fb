#include "kernels/cpu/thread_pool.h"

#include <algorithm>

namespace lorikeet::kernels {
namespace {

// Of ThreadPool::loop_.
constexpr uint64_t kOpen = uint64_t{1} << 31;
constexpr uint64_t kNextLoop = uint64_t{1} << 32;

// No part is less than a thread's share of the loop divided by this, where the grain allows.
constexpr int64_t kLeastShare = 16;

bool is_open(uint64_t loop) {
  return (loop & kOpen) != 0;
}

void pause_briefly() {
#if defined(__x86_64__)
  __builtin_ia32_pause();
#else
  std::this_thread::yield();
#endif
}

}  // namespace

ThreadPool::ThreadPool(int threads, std::chrono::microseconds spin) : spin_(spin) {
  start(threads);
}

ThreadPool::~ThreadPool() {
  stop();
}

void ThreadPool::resize(int threads, std::chrono::microseconds spin) {
  if (std::max(threads, 1) == size() && spin == spin_) return;
  stop();
  stop_ = false;
  spin_ = spin;
  start(threads);
}

void ThreadPool::start(int threads) {
  const uint64_t seen = loop_ / kNextLoop;
  for (int i = 1; i < threads; ++i) workers_.emplace_back([this, seen] { work(seen); });
}

void ThreadPool::stop() {
  {
    const std::lock_guard lock(mutex_);
    stop_ = true;
  }
  start_.notify_all();
  for (std::thread& worker : workers_) worker.join();
  workers_.clear();
}

// Whether it became true within the time.
template <class Condition>
bool ThreadPool::spin_until(const Condition& condition) const {
  if (condition()) return true;
  if (spin_.count() == 0) return false;
  const auto end = std::chrono::steady_clock::now() + spin_;
  do {
    for (int i = 0; i < 32; ++i) {
      pause_briefly();
      if (condition()) return true;
    }
  } while (std::chrono::steady_clock::now() < end);
  return false;
}

void ThreadPool::parallel_for(int64_t count, int64_t grain, const std::function<void(int64_t, int64_t)>& body) {
  if (count <= 0) return;
  if (workers_.empty() || count <= grain) {
    body(0, count);
    return;
  }
  body_ = &body;
  count_ = count;
  grain_ = grain;
  least_ = std::max<int64_t>(count / (kLeastShare * size()), 1);
  next_ = 0;
  open_loop();
  run_parts();
  close_loop();
}

void ThreadPool::open_loop() {
  {
    const std::lock_guard lock(mutex_);  // a worker that is about to sleep either sees the change or is woken
    loop_ = (loop_ / kNextLoop + 1) * kNextLoop + kOpen;
  }
  start_.notify_all();
}

// Waits for those who have joined.
void ThreadPool::close_loop() {
  loop_ -= kOpen;
  const auto all_left = [this] { return loop_ % kNextLoop == 0; };
  if (spin_until(all_left)) return;
  std::unique_lock lock(mutex_);
  done_.wait(lock, all_left);
}

// False where there is no other loop than `seen`, or no longer.
bool ThreadPool::join_loop(uint64_t seen) {
  uint64_t loop = loop_;
  while (is_open(loop) && loop / kNextLoop != seen) {
    if (loop_.compare_exchange_weak(loop, loop + 1)) return true;
  }
  return false;
}

void ThreadPool::leave_loop() {
  if ((--loop_) % kNextLoop > 0) return;
  { const std::lock_guard lock(mutex_); }  // the caller either sees the end or sleeps by now
  done_.notify_one();
}

// seen: the last loop that was opened before it began.
void ThreadPool::work(uint64_t seen) {
  const auto has_work = [&] {
    const uint64_t loop = loop_;
    return stop_ || (is_open(loop) && loop / kNextLoop != seen);
  };
  while (true) {
    if (!spin_until(has_work)) {
      std::unique_lock lock(mutex_);
      start_.wait(lock, has_work);
    }
    if (stop_) return;
    if (!join_loop(seen)) continue;
    seen = loop_ / kNextLoop;
    run_parts();
    leave_loop();
  }
}

void ThreadPool::run_parts() {
  int64_t begin = next_;
  while (begin < count_) {
    const int64_t part = std::max((count_ - begin) / (2 * size()), least_);
    const int64_t end = std::min(count_, begin + (part + grain_ - 1) / grain_ * grain_);
    if (!next_.compare_exchange_weak(begin, end)) continue;
    (*body_)(begin, end);
    begin = next_;
  }
}

}  // namespace lorikeet::kernels
