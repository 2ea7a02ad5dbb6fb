// Where the ranks compute, and what it gives at the most.
#pragma once

#include <cstdint>
#include <string>

#include "kernels/base/error.h"
#include "kernels/base/floors.h"

namespace lorikeet::launcher {

// "auto", "cpu" or "cuda" -> "cpu" or "cuda". "cuda" is refused with the reason where it cannot work.
Result<std::string> choose_device(const std::string& wanted);

// The CUDA devices of this host; model: the first one's, such as "NVIDIA H200". Errors say why there are none.
struct CudaDevices {
  int count = 0;
  std::string model;
};
Result<CudaDevices> cuda_device_models();

// Memory of the first CUDA device; 0: there is none.
uint64_t cuda_device_bytes();

struct MeasuredDevice {
  std::string name;
  int count = 1;  // of such devices on this host
  kernels::Floors floors;
};

// Measures "cpu" (all cores) or "cuda" (the first device). Takes seconds; nothing else should run meanwhile.
Result<MeasuredDevice> measure_device(const std::string& device);

}  // namespace lorikeet::launcher
