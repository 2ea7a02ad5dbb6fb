// Copies of weights that are ready, from any memory of the host to the device, through a ring of page-locked pieces: as
// fast as the link. A few threads fill the pieces, and the caller's alone speaks to the device, whose driver lets one
// thread in at a time.
//
// Memory that other processes have sealed is read from its file: pages that came into this process as they are read, and
// went with their mapping, would hold up every thread of it that wants memory meanwhile, a step's as well.
//
// Nobody sleeps until the device says that a piece is there: it would interrupt one of the host's processors for each, and the
// thread that this one runs, of whatever process, would stand still for as long as the copy takes. The caller's thread looks.
//
// What is on its way at once is bounded to kOnTheWay pieces, 160 us of PCIe 5: other copies to the device wait for them, or
// until the copy engine turns to other streams, a millisecond. Steps do not bring what they begin with by one
// (kernels/cuda/pinned_copy_cuda.h).
#pragma once

#include <array>
#include <chrono>
#include <cstdint>
#include <memory>
#include <optional>
#include <span>

#include "kernels/base/device.h"
#include "kernels/base/polled_event.h"
#include "kernels/base/resident_memory.h"

namespace lorikeet::kernels {

struct UploadPart {
  void* to = nullptr;          // on the device
  const void* from = nullptr;  // on the host, page-locked or not
  uint64_t bytes = 0;
};

// Threads: one at a time calls copy.
class LoraUpload {
 public:
  static constexpr uint64_t kPieceBytes = 1 << 20;
  static constexpr size_t kOnTheWay = 8;  // pieces
  static constexpr size_t kPieces = 32;   // of the ring: nobody who fills waits for the device, or hardly ever
  static constexpr size_t kMostFillers = 12;

  // With the threads that fill: for three quarters of the cores, in the background. longest_wait: for a piece.
  static Result<LoraUpload> make(std::chrono::milliseconds longest_wait = PolledEvent::kLongestWait);
  LoraUpload();
  ~LoraUpload();
  LoraUpload(LoraUpload&& other) noexcept;
  LoraUpload& operator=(LoraUpload&& other) noexcept;

  // Returns when everything has arrived. memory: that all parts lie in; null: they lie anywhere. Fails where the device
  // does not end a copy in time. Then copies may still be on their way, and every further call fails at once until they
  // have arrived; settled() says so, too.
  Result<void> copy(std::span<const UploadPart> parts, const ResidentMemory* memory = nullptr);
  Result<void> settled();

  const Stream& stream() const { return stream_; }  // of all copies

 private:
  class Filling;
  class Fillers;

  Stream stream_;
  std::array<PolledEvent, kPieces> copied_;
  PinnedBuffer ring_;
  std::unique_ptr<Fillers> fillers_;
  std::chrono::milliseconds longest_wait_{};
  std::optional<size_t> late_;  // of copied_: the last piece of a copy that did not end in time
};

}  // namespace lorikeet::kernels
