#include "kernels/cpu/thread_pool.h"

#include <algorithm>

namespace lorikeet::kernels {

ThreadPool::ThreadPool(int threads) {
  for (int i = 1; i < threads; ++i) workers_.emplace_back([this, i] { work(i); });
}

ThreadPool::~ThreadPool() {
  {
    const std::lock_guard lock(mutex_);
    stop_ = true;
  }
  start_.notify_all();
  for (std::thread& worker : workers_) worker.join();
}

void ThreadPool::parallel_for(int64_t count, int64_t grain, const std::function<void(int64_t, int64_t)>& body) {
  if (count <= 0) return;
  if (workers_.empty() || count <= grain) {
    body(0, count);
    return;
  }
  {
    const std::lock_guard lock(mutex_);
    body_ = &body;
    count_ = count;
    grain_ = grain;
    running_ = static_cast<int>(workers_.size());
    ++generation_;
  }
  start_.notify_all();
  run_part(0);
  std::unique_lock lock(mutex_);
  done_.wait(lock, [this] { return running_ == 0; });
}

void ThreadPool::work(int index) {
  uint64_t seen = 0;
  std::unique_lock lock(mutex_);
  while (true) {
    start_.wait(lock, [&] { return stop_ || generation_ != seen; });
    if (stop_) return;
    seen = generation_;
    lock.unlock();
    run_part(index);
    lock.lock();
    if (--running_ == 0) done_.notify_one();
  }
}

void ThreadPool::run_part(int index) const {
  const int64_t grains = (count_ + grain_ - 1) / grain_;
  const int64_t begin = std::min(count_, grains * index / size() * grain_);
  const int64_t end = std::min(count_, grains * (index + 1) / size() * grain_);
  if (begin < end) (*body_)(begin, end);
}

}  // namespace lorikeet::kernels
