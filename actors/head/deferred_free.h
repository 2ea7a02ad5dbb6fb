// What takes long to free is freed on a thread that has nothing else to do, so that whoever lets go of it last, which may be
// an actor, does not wait. What waits for that is memory that nobody counts any more: it is bounded here.
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

  // most_bytes: that wait or are being freed at a time, or one alone more. in_background: the thread gives way to others.
  DeferredFree(uint64_t most_bytes, bool in_background);
  DeferredFree(uint64_t most_bytes, bool in_background, StartThread start_thread);
  ~DeferredFree();  // waits until all is freed
  DeferredFree(const DeferredFree&) = delete;
  DeferredFree& operator=(const DeferredFree&) = delete;

  // Lets go of `owner`, whose end gives back `bytes`: by the thread, which the first one starts; or here and now, where too
  // much waits or the system gives no thread. Threads: any.
  void free(std::shared_ptr<const void> owner, uint64_t bytes);

 private:
  struct State;

  const std::unique_ptr<State> state_;
};

}  // namespace lorikeet::actors
