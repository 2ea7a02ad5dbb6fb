// Copies of weights that are ready, from any memory of the host to the device, through page-locked pieces: as fast as
// the link, by a few threads that fill the pieces and a stream for each of them.
//
// What is on its way at once is bounded to kLanes * kPiecesOfLane pieces, so that a copy that a step queues behind them
// waits for 4 MiB at the most: 80 us on PCIe 5, 160 on 4.
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
  static constexpr int kLanes = 8;
  static constexpr int kPiecesOfLane = 2;
  static constexpr uint64_t kPieceBytes = 256 << 10;

  static Result<LoraUpload> make();

  // Returns when everything has arrived. The calling thread fills pieces, and so do up to kLanes - 1 that it starts: no
  // more than half of the cores.
  void copy(std::span<const UploadPart> parts);

 private:
  struct Lane {
    Stream stream;
    std::array<Event, kPiecesOfLane> copied;
    PinnedBuffer pieces;
  };

  static void run(Lane& lane, const std::vector<UploadPart>& pieces, size_t first, size_t lanes);

  std::array<Lane, kLanes> lanes_;
};

}  // namespace lorikeet::kernels
