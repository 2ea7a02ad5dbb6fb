// A DeviceBuffer in memory of somebody else.
#pragma once

#include <cstdint>
#include <memory>

#include "kernels/base/device.h"

namespace lorikeet::kernels {

// `bytes` bytes of device memory at `data`, 256-byte aligned. `owner` is kept until the buffer ends, and nothing else
// happens to the memory then. Two buffers at a time must not begin at the same address.
DeviceBuffer borrowed_buffer(void* data, uint64_t bytes, std::shared_ptr<const void> owner);

}  // namespace lorikeet::kernels
