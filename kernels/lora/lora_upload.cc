#include "kernels/lora/lora_upload.h"

#include <algorithm>
#include <cstring>
#include <system_error>
#include <thread>

#include <glog/logging.h>

namespace lorikeet::kernels {

Result<LoraUpload> LoraUpload::make() {
  LoraUpload made;
  for (Lane& lane : made.lanes_) {
    Result<Stream> stream = Stream::make();
    if (!stream) return tl::unexpected(stream.error());
    lane.stream = std::move(*stream);
    Result<PinnedBuffer> pieces = PinnedBuffer::allocate(kPiecesOfLane * kPieceBytes, "adapters on their way");
    if (!pieces) return tl::unexpected(pieces.error());
    lane.pieces = std::move(*pieces);
    for (Event& event : lane.copied) {
      Result<Event> copied = Event::make();
      if (!copied) return tl::unexpected(copied.error());
      event = std::move(*copied);
    }
  }
  return made;
}

void LoraUpload::copy(std::span<const UploadPart> parts) {
  std::vector<UploadPart> pieces;
  for (const UploadPart& part : parts) {
    for (uint64_t done = 0; done < part.bytes; done += kPieceBytes) {
      pieces.push_back({static_cast<unsigned char*>(part.to) + done,
                        static_cast<const unsigned char*>(part.from) + done, std::min(kPieceBytes, part.bytes - done)});
    }
  }
  const int device = current_device();
  const size_t lanes = std::min({size_t{kLanes}, pieces.size(), size_t{std::thread::hardware_concurrency() / 2 + 1}});
  std::vector<std::thread> helpers;
  try {
    while (helpers.size() + 1 < lanes) {
      helpers.emplace_back([this, i = helpers.size() + 1, lanes, device, &pieces] {
        CHECK(use_device(device));  // that this process computes on
        run(lanes_[i], pieces, i, lanes);
      });
    }
  } catch (const std::system_error&) {  // what lacks a thread is done here
  }
  if (lanes > 0) run(lanes_[0], pieces, 0, lanes);
  for (size_t i = helpers.size() + 1; i < lanes; ++i) run(lanes_[i], pieces, i, lanes);
  for (std::thread& helper : helpers) helper.join();
}

// Every `lanes`-th piece from the first on.
void LoraUpload::run(Lane& lane, const std::vector<UploadPart>& pieces, size_t first, size_t lanes) {
  size_t turn = 0;
  for (size_t i = first; i < pieces.size(); i += lanes, turn = (turn + 1) % kPiecesOfLane) {
    const UploadPart& piece = pieces[i];
    auto* const pinned = lane.pieces.as<unsigned char>() + turn * kPieceBytes;
    lane.copied[turn].synchronize();
    std::memcpy(pinned, piece.from, piece.bytes);
    copy_to_device(piece.to, pinned, piece.bytes, lane.stream);
    lane.copied[turn].record(lane.stream);
  }
  for (const Event& copied : lane.copied) copied.synchronize();
}

}  // namespace lorikeet::kernels
