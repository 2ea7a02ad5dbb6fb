// Copies from page-locked memory to the device, small ones by a kernel: the copy engine takes the copies of all streams in
// turn, so that a few KiB that a step begins with would wait behind the megabytes of an adapter on its way, or until the
// engine turns from that stream to this one, a millisecond.
#pragma once

#include <cstdint>

#include "kernels/base/device.h"

namespace lorikeet::kernels {

// Queues it. pinned: memory of a PinnedBuffer, unchanged until the copy has ended. Both begin at multiples of 16 bytes. More
// than 128 KiB are copied by the engine.
void copy_pinned_to_device(void* device, const void* pinned, uint64_t bytes, const Stream& stream);

}  // namespace lorikeet::kernels
