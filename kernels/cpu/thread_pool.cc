#include "kernels/cpu/thread_pool.h"

#include <algorithm>

namespace lorikeet::kernels {
namespace {

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
  const uint64_t seen = generation_;
  for (int i = 1; i < threads; ++i) workers_.emplace_back([this, i, seen] { work(i, seen); });
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
  {
    const std::lock_guard lock(mutex_);  // a worker that is about to sleep either sees the change or is woken
    body_ = &body;
    count_ = count;
    grain_ = grain;
    running_ = static_cast<int>(workers_.size());
    ++generation_;
  }
  start_.notify_all();
  run_part(0);
  const auto all_done = [this] { return running_ == 0; };
  if (spin_until(all_done)) return;
  std::unique_lock lock(mutex_);
  done_.wait(lock, all_done);
}

// seen: the loops that were over when it began.
void ThreadPool::work(int index, uint64_t seen) {
  const auto has_work = [&] { return stop_ || generation_ != seen; };
  while (true) {
    if (!spin_until(has_work)) {
      std::unique_lock lock(mutex_);
      start_.wait(lock, has_work);
    }
    if (stop_) return;
    seen = generation_;
    run_part(index);
    if (--running_ > 0) continue;
    { const std::lock_guard lock(mutex_); }  // the caller either sees the end or sleeps by now
    done_.notify_one();
  }
}

void ThreadPool::run_part(int index) const {
  const int64_t grains = (count_ + grain_ - 1) / grain_;
  const int64_t begin = std::min(count_, grains * index / size() * grain_);
  const int64_t end = std::min(count_, grains * (index + 1) / size() * grain_);
  if (begin < end) (*body_)(begin, end);
}

}  // namespace lorikeet::kernels
