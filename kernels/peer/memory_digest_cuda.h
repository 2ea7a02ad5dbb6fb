// A digest of device memory, by which a process sees that memory left by another one is what that one has written.
#pragma once

#include <cstdint>

#include "kernels/base/device.h"
#include "kernels/base/error.h"

namespace lorikeet::kernels {

// Of `bytes` bytes, a multiple of 8; each word counts by its place. It shows accidents, and is no defence against whoever
// means to deceive. Waits for the result.
Result<uint64_t> memory_digest_cuda(const void* data, uint64_t bytes, const Stream& stream);

}  // namespace lorikeet::kernels
