// The device that the int4 products of the tests are shaped for.
#pragma once

#include <algorithm>

#include "kernels/int4/decode/int4_decode.h"
#include "tests/kernels/base/test_sizes.h"

namespace lorikeet::kernels {

// The device at hand; with few sizes as if it had few multiprocessors, so that each block makes as much as of a large weight.
inline Int4DecodeDevice tested_device() {
  Int4DecodeDevice device = Int4DecodeDevice::current();
  if (!takes_few_sizes()) return device;
  device.multiprocessors = std::min(device.multiprocessors, 6);
  device.pairs = std::min(device.pairs, 3);
  device.quads = std::min(device.quads, 1);
  return device;
}

}  // namespace lorikeet::kernels
