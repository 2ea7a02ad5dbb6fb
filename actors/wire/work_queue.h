// Work that threads take in turn: what waits is bounded in bytes, and can be taken back until a thread has it. It lies
// in wire/ because both the head and the ranks have such threads; nothing of it crosses a process.
#pragma once

#include <chrono>
#include <condition_variable>
#include <cstddef>
#include <cstdint>
#include <map>
#include <mutex>
#include <optional>
#include <utility>

namespace lorikeet::actors {

// Threads: every method from any thread; any number of them may take. Close it before its threads are joined.
template <class Item>
class WorkQueue {
 public:
  using Ticket = uint64_t;  // of an item that was queued; never reused

  // `max_bytes` bounds what waits; what a thread has taken counts no more.
  explicit WorkQueue(size_t max_bytes) : max_bytes_(max_bytes) {}
  WorkQueue(const WorkQueue&) = delete;
  WorkQueue& operator=(const WorkQueue&) = delete;

  // Queues an item that owns `bytes` beside itself. Never waits: nullopt where there is no room for it, or the queue is
  // closed.
  std::optional<Ticket> push(Item item, size_t bytes) {
    Ticket ticket = 0;
    {
      const std::lock_guard lock(mutex_);
      const size_t room = max_bytes_ - bytes_;
      if (closed_ || sizeof(Item) > room || bytes > room - sizeof(Item)) return std::nullopt;
      ticket = ++last_ticket_;
      bytes_ += sizeof(Item) + bytes;
      items_.emplace(ticket, Waiting{std::move(item), sizeof(Item) + bytes});
    }
    wake_.notify_one();
    return ticket;
  }

  // Takes back what no thread has taken yet; nullopt where one has.
  std::optional<Item> cancel(Ticket ticket) {
    const std::lock_guard lock(mutex_);
    const auto it = items_.find(ticket);
    if (it == items_.end()) return std::nullopt;
    return take(it);
  }

  // The oldest item, as soon as there is one; nullopt once the queue is closed. The deadline of this wait is close().
  std::optional<Item> pop() {
    std::unique_lock lock(mutex_);
    wake_.wait(lock, [this] { return closed_ || !items_.empty(); });
    return take_oldest();
  }

  // The same, but nullopt also where none has come in time.
  std::optional<Item> pop_within(std::chrono::microseconds time) {
    std::unique_lock lock(mutex_);
    wake_.wait_for(lock, time, [this] { return closed_ || !items_.empty(); });
    return take_oldest();
  }

  // The same, but nullopt also where there is none.
  std::optional<Item> try_pop() {
    const std::lock_guard lock(mutex_);
    return take_oldest();
  }

  // Cancels all that waits, and lets the threads go that wait for more.
  void close() {
    std::map<Ticket, Waiting> dropped;  // destroyed without the lock
    {
      const std::lock_guard lock(mutex_);
      closed_ = true;
      bytes_ = 0;
      dropped.swap(items_);
    }
    wake_.notify_all();
  }

  bool closed() const {
    const std::lock_guard lock(mutex_);
    return closed_;
  }

  size_t size() const {  // items that wait
    const std::lock_guard lock(mutex_);
    return items_.size();
  }

  // Bytes of what waits.
  size_t bytes() const {
    const std::lock_guard lock(mutex_);
    return bytes_;
  }

 private:
  struct Waiting {
    Item item;
    size_t bytes = 0;
  };

  std::optional<Item> take_oldest() {
    if (items_.empty()) return std::nullopt;
    return take(items_.begin());
  }

  Item take(typename std::map<Ticket, Waiting>::iterator it) {
    Item item = std::move(it->second.item);
    bytes_ -= it->second.bytes;
    items_.erase(it);
    return item;
  }

  const size_t max_bytes_;
  mutable std::mutex mutex_;  // guards what follows
  std::condition_variable wake_;
  std::map<Ticket, Waiting> items_;
  Ticket last_ticket_ = 0;
  size_t bytes_ = 0;
  bool closed_ = false;
};

}  // namespace lorikeet::actors
