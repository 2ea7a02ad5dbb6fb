// Copies of weights that are ready, from any memory of the host to the device, through a ring of page-locked pieces: as
// fast as the link. A few threads fill the pieces, each a part of one, and the caller's alone speaks to the device, whose
// driver lets one thread in at a time.
//
// What is on its way at once is bounded to kOnTheWay pieces, so that a copy that a step queues behind them waits for 4 MiB
// at the most: 80 us on PCIe 5, 160 on 4.
#pragma once

#include <array>
#include <cstdint>
#include <span>
#include <vector>

#include "kernels/base/device.h"

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
  static constexpr size_t kMostFillers = 8;

  static Result<LoraUpload> make();

  // Returns when everything has arrived. Pieces are filled by threads that it starts, no more than half of the cores.
  void copy(std::span<const UploadPart> parts);

 private:
  class Filling;

  Stream stream_;
  std::array<Event, kPieces> copied_;
  PinnedBuffer ring_;
};

}  // namespace lorikeet::kernels
