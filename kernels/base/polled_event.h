// A point in a stream's work that the host looks for. An Event that it sleeps for (kernels/base/device.h) lets the device
// interrupt one of the host's processors at every record, waited for or not: thousands a second take that processor from
// whatever thread it runs.
//
// Threads: one at a time. Errors: as kernels/base/device.h.
#pragma once

#include <chrono>
#include <utility>

#include "kernels/base/device.h"

namespace lorikeet::kernels {

class PolledEvent {
 public:
  static constexpr std::chrono::seconds kLongestWait{120};  // far above any load of an adapter

  static Result<PolledEvent> make();
  PolledEvent() = default;
  ~PolledEvent();
  PolledEvent(PolledEvent&& other) noexcept : handle_(std::exchange(other.handle_, nullptr)) {}
  PolledEvent& operator=(PolledEvent&& other) noexcept {
    std::swap(handle_, other.handle_);
    return *this;
  }

  void record(const Stream& stream) const;
  bool ready() const;  // true also before the first record
  // Looks every 20 us, and sleeps between (kernels/base/thread_turns.h, sleep_exactly). Fails where the device has not come
  // so far within `limit`: what was queued may still run, so that memory it reads or writes must not be used again before
  // the event is ready.
  Result<void> wait(std::chrono::milliseconds limit = kLongestWait) const;

 private:
  CUevent_st* handle_ = nullptr;
};

}  // namespace lorikeet::kernels
