// What may come out of a connection between two actor systems, checked before CAF sees it.
//
// CAF 0.17 believes the headers of its protocol (BASP): one of 32 bytes makes it allocate 4 GiB, another one makes it
// read a payload that is not there. Between our processes nothing of the kind is ever sent, so a connection that brings
// it is ended.
#pragma once

#include <array>
#include <cstddef>
#include <cstdint>
#include <span>

namespace lorikeet::actors {

// A frame is a header of 32 bytes and a payload. Of the header: byte 0 is the operation, bytes 4 to 7 are the payload's
// length, big endian. Threads: one.
class FrameGuard {
 public:
  static constexpr uint32_t kMaxPayload = 2 << 20;  // bytes; envelopes have 256 KiB

  // The next bytes of the stream, cut anywhere. False: they must not reach CAF, and the connection has to end.
  bool take(std::span<const uint8_t> bytes);

 private:
  bool header_is_ours();

  std::array<uint8_t, 32> header_{};
  size_t collected_ = 0;  // bytes of the header
  size_t payload_ = 0;    // bytes of it that are still to come
};

}  // namespace lorikeet::actors
