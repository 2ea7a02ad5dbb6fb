// A digest of device memory, by which a process sees that memory left by another one is what that one has written.
#pragma once

#include <cstdint>
#include <span>

#include "kernels/base/device.h"
#include "kernels/base/error.h"

namespace lorikeet::kernels {

// Of `bytes` bytes, a multiple of 8; each word counts by its place. It shows accidents, and is no defence against whoever
// means to deceive. Waits for the result.
Result<uint64_t> memory_digest_cuda(const void* data, uint64_t bytes, const Stream& stream);

// Device memory of `bytes` bytes, a multiple of 8.
struct DevicePart {
  const void* data = nullptr;
  uint64_t bytes = 0;
};

// Queues the same of parts, as if they lay one behind the other, and waits for nothing. A step is held up for as long as the
// memory takes to be read where this is on a stream as urgent as its own, and for longer, a little between its kernels each,
// where it is on one that waits for them. sum: 8 bytes of device memory, 8-byte aligned, which the digest
// is written to.
void memory_digest_cuda(std::span<const DevicePart> parts, uint64_t* sum, const Stream& stream);

}  // namespace lorikeet::kernels
