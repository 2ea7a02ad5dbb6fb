#include "actors/head/deferred_free.h"

#include <algorithm>
#include <condition_variable>
#include <deque>
#include <mutex>
#include <system_error>
#include <utility>

#include "kernels/base/thread_turns.h"

namespace lorikeet::actors {
namespace {

constexpr uint64_t kLeastBytes = 4096;  // counted for each object, since even a small one takes memory while it waits

}  // namespace

struct DeferredFree::State {
  struct Waiting {
    std::shared_ptr<const void> owner;
    uint64_t bytes;
  };

  const uint64_t most_bytes;
  const bool in_background;
  const StartThread start_thread;
  std::mutex mutex;
  std::condition_variable wake;
  bool stop = false;
  std::deque<Waiting> queue;
  uint64_t bytes = 0;  // of those that wait, and of the one that is being freed
  std::thread thread;

  State(uint64_t most, bool background, StartThread start)
      : most_bytes(most), in_background(background), start_thread(std::move(start)) {}

  // The lock is held.
  bool may_wait(uint64_t more) const { return bytes == 0 || (bytes <= most_bytes && more <= most_bytes - bytes); }
  bool has_thread() {
    if (thread.joinable()) return true;
    try {
      thread = start_thread([this] { serve(); });
    } catch (const std::system_error&) {
      return false;  // the next one asks again
    }
    return true;
  }

  void serve() {
    if (in_background) kernels::work_in_background();
    std::unique_lock lock(mutex);
    for (;;) {
      wake.wait(lock, [this] { return stop || !queue.empty(); });
      if (queue.empty()) return;
      Waiting next = std::move(queue.front());
      queue.pop_front();
      lock.unlock();
      next.owner.reset();
      lock.lock();
      bytes -= next.bytes;
    }
  }
};

DeferredFree::DeferredFree(uint64_t most_bytes, bool in_background)
    : DeferredFree(most_bytes, in_background, [](std::function<void()> body) { return std::thread(std::move(body)); }) {
}

DeferredFree::DeferredFree(uint64_t most_bytes, bool in_background, StartThread start_thread)
    : state_(std::make_unique<State>(most_bytes, in_background, std::move(start_thread))) {}

DeferredFree::~DeferredFree() {
  {
    const std::lock_guard lock(state_->mutex);
    state_->stop = true;
    state_->wake.notify_one();
  }
  if (state_->thread.joinable()) state_->thread.join();
}

void DeferredFree::free(std::shared_ptr<const void> owner, uint64_t bytes) {
  bytes = std::max(bytes, kLeastBytes);
  const std::lock_guard lock(state_->mutex);
  if (!state_->may_wait(bytes) || !state_->has_thread()) return;  // `owner` ends behind the lock
  state_->bytes += bytes;
  state_->queue.push_back({std::move(owner), bytes});
  state_->wake.notify_one();
}

}  // namespace lorikeet::actors
