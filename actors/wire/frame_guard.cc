#include "actors/wire/frame_guard.h"

#include <algorithm>

namespace lorikeet::actors {
namespace {

// Of BASP, version 5 (caf/io/basp/message_type.hpp).
constexpr uint8_t kRoutedMessage = 3;
constexpr uint8_t kHeartbeat = 6;  // the last one, and the only one without a payload

}  // namespace

bool FrameGuard::take(std::span<const uint8_t> bytes) {
  while (!bytes.empty()) {
    if (payload_ > 0) {
      const size_t count = std::min(payload_, bytes.size());
      payload_ -= count;
      bytes = bytes.subspan(count);
      continue;
    }
    const size_t count = std::min(header_.size() - collected_, bytes.size());
    std::copy_n(bytes.begin(), count, header_.begin() + static_cast<ptrdiff_t>(collected_));
    collected_ += count;
    bytes = bytes.subspan(count);
    if (collected_ == header_.size() && !header_is_ours()) return false;
  }
  return true;
}

bool FrameGuard::header_is_ours() {
  const uint8_t operation = header_[0];
  const uint32_t length =
      uint32_t{header_[4]} << 24 | uint32_t{header_[5]} << 16 | uint32_t{header_[6]} << 8 | uint32_t{header_[7]};
  if (operation > kHeartbeat || length > kMaxPayload) return false;
  // Every process speaks for itself: a routed message names its sender, and could name somebody else.
  if (operation == kRoutedMessage) return false;
  if ((operation == kHeartbeat) != (length == 0)) return false;
  collected_ = 0;
  payload_ = length;
  return true;
}

}  // namespace lorikeet::actors
