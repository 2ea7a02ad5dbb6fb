// Copies of weights that are ready, from any memory of the host to the device, through a ring of page-locked pieces: as
// fast as the link. A few threads fill the pieces, and the caller's alone speaks to the device, whose driver lets one
// thread in at a time.
//
// Memory that other processes have sealed is read from its file: pages that came into this process as they are read, and
// went with their mapping, would hold up every thread of it that wants memory meanwhile, a step's as well.
//
// What is on its way at once is bounded to kOnTheWay pieces, so that a copy that a step queues behind them waits for 4 MiB
// at the most: 80 us on PCIe 5, 160 on 4.
#pragma once

#include <array>
#include <cstdint>
#include <memory>
#include <span>

#include "kernels/base/device.h"
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
  static constexpr size_t kOnTheWay = 4;  // pieces
  static constexpr size_t kPieces = 32;   // of the ring: nobody who fills waits for the device, or hardly ever
  static constexpr size_t kMostFillers = 12;

  // With the threads that fill: no more than half of the cores, in the background.
  static Result<LoraUpload> make();
  LoraUpload();
  ~LoraUpload();
  LoraUpload(LoraUpload&& other) noexcept;
  LoraUpload& operator=(LoraUpload&& other) noexcept;

  // Returns when everything has arrived. memory: that all parts lie in; null: they lie anywhere.
  void copy(std::span<const UploadPart> parts, const ResidentMemory* memory = nullptr);

 private:
  class Filling;
  class Fillers;

  Stream stream_;
  std::array<Event, kPieces> copied_;
  PinnedBuffer ring_;
  std::unique_ptr<Fillers> fillers_;
};

}  // namespace lorikeet::kernels
