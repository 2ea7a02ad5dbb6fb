#include "actors/head/adapter_reader.h"

#include <algorithm>
#include <chrono>
#include <filesystem>
#include <utility>

namespace lorikeet::actors {
namespace {

constexpr int kFewestReadThreads = 2;  // one slow disk does not hold up all others
constexpr int kMostReadThreads = 8;
constexpr int kReadAttempts = 3;  // files that change while they are read

// Reading is hashing and copying as much as waiting for the disk; the ranks need cores as well.
int read_threads() {
  return std::clamp(static_cast<int>(std::thread::hardware_concurrency()) / 2, kFewestReadThreads, kMostReadThreads);
}

}  // namespace

AdapterReader::AdapterReader(model::ShardPlan plan, int32_t max_lora_rank, TestHooks hooks, Callbacks callbacks)
    : plan_(std::move(plan)),
      max_lora_rank_(max_lora_rank),
      hooks_(std::move(hooks)),
      callbacks_(std::move(callbacks)) {
  threads_.emplace_back([this] { serve(checks_); });
  for (int i = read_threads(); i > 0; --i) threads_.emplace_back([this] { serve(reads_); });
}

AdapterReader::~AdapterReader() {
  {
    const std::lock_guard lock(mutex_);
    stop_ = true;
  }
  checks_.wake.notify_all();
  reads_.wake.notify_all();
  stop_wake_.notify_all();
  for (std::thread& thread : threads_) thread.join();
}

void AdapterReader::check(std::string name, std::string dir) {
  push(checks_, [this, name = std::move(name), dir = std::move(dir)] { callbacks_.checked({name, stamp_of(dir)}); });
}

void AdapterReader::read(std::string name, std::string dir) {
  push(reads_, [this, name = std::move(name), dir = std::move(dir)] {
    hold(name);
    callbacks_.staged(stage(name, dir));
  });
}

void AdapterReader::run(std::function<void()> work) {
  push(reads_, std::move(work));
}

void AdapterReader::push(Queue& queue, std::function<void()> job) {
  {
    const std::lock_guard lock(mutex_);
    queue.jobs.push_back(std::move(job));
  }
  queue.wake.notify_one();
}

void AdapterReader::serve(Queue& queue) {
  for (;;) {
    std::function<void()> job;
    {
      std::unique_lock lock(mutex_);
      queue.wake.wait(lock, [&] { return stop_ || !queue.jobs.empty(); });
      if (stop_) return;
      job = std::move(queue.jobs.front());
      queue.jobs.pop_front();
    }
    job();
  }
}

AdapterReader::Staged AdapterReader::stage(const std::string& name, const std::string& dir) const {
  for (int attempt = 1;; ++attempt) {
    const FileStamp before = stamp_of(dir);
    auto adapter = stage_adapter(dir, plan_, max_lora_rank_);
    if (stamp_of(dir) == before) return {name, before, std::move(adapter)};
    if (attempt == kReadAttempts) return {name, before, fail("{}: the files change while they are read", dir)};
  }
}

// The test hooks "hold_adapter_load=NAME,release_file=PATH": the reading of one adapter waits until the file is there.
void AdapterReader::hold(const std::string& name) {
  if (hooks_.value_of("hold_adapter_load") != name) return;
  const std::filesystem::path release = hooks_.value_of("release_file").value_or("");
  std::unique_lock lock(mutex_);
  std::error_code error;
  while (!stop_ && !std::filesystem::exists(release, error)) {
    stop_wake_.wait_for(lock, std::chrono::milliseconds(20));
  }
}

}  // namespace lorikeet::actors
