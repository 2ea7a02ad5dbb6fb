// Frees large objects on a thread of its own, so that whoever drops the last reference, which may be an actor, does not
// wait. No other budget counts memory that waits to be freed, so it is bounded here.
#pragma once

#include <cstdint>
#include <functional>
#include <memory>
#include <thread>

namespace lorikeet::actors {

class DeferredFree {
 public:
  // As std::thread: throws std::system_error where the system gives no thread.
  using StartThread = std::function<std::thread(std::function<void()>)>;

  // most_bytes: that may wait or be freed at a time, though one object always may. in_background: the thread runs at low
  // priority.
  DeferredFree(uint64_t most_bytes, bool in_background);
  DeferredFree(uint64_t most_bytes, bool in_background, StartThread start_thread);
  ~DeferredFree();  // waits until all is freed
  DeferredFree(const DeferredFree&) = delete;
  DeferredFree& operator=(const DeferredFree&) = delete;

  // Drops `owner`, whose end frees `bytes`: on the thread, which the first call starts, or in this call where too much
  // waits or the system gives no thread. Threads: any.
  void free(std::shared_ptr<const void> owner, uint64_t bytes);

 private:
  struct State;

  const std::unique_ptr<State> state_;
};

}  // namespace lorikeet::actors
