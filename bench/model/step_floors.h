// What a device can do at most, for the floors of decode_step_gpu_bench.
#pragma once

#include "kernels/base/device.h"

namespace lorikeet::bench {

struct StepFloors {
  double read = 0;   // bytes a second, by bulk copies
  double flops = 0;  // of a large product of cuBLASLt in fp16, a second
};

// Takes some seconds, and 4 GiB of the device's memory while it runs.
StepFloors measure_step_floors(const kernels::Stream& stream);

}  // namespace lorikeet::bench
