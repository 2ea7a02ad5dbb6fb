// A point in a stream's work that the host looks for. An Event that it sleeps for (kernels/base/device.h) lets the device
// interrupt one of the host's processors at every record, waited for or not: thousands a second take that processor from
// whatever thread it runs.
//
// Threads: one at a time. Errors: as kernels/base/device.h.
#pragma once

#include <utility>

#include "kernels/base/device.h"

namespace lorikeet::kernels {

class PolledEvent {
 public:
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
  void wait() const;   // looks every 20 us, and sleeps between (kernels/base/thread_turns.h, sleep_exactly)

 private:
  CUevent_st* handle_ = nullptr;
};

}  // namespace lorikeet::kernels
