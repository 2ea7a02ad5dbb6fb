// The device that ranks compute on, and its measured limits.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "kernels/base/error.h"
#include "kernels/base/floors.h"

namespace lorikeet::launcher {

// "auto", "cpu" or "cuda" -> "cpu" or "cuda". "cuda" is refused with the reason where it cannot work.
Result<std::string> choose_device(const std::string& wanted);

// A CUDA device of this host. How it reaches each of them: 0 over the host's memory, 1 peer to peer, 2 as over NVLink.
struct CudaDevice {
  std::string model;  // such as "NVIDIA H200"
  uint64_t memory_bytes = 0;
  std::vector<uint8_t> links;  // [device]
};

// Errors say why there are none.
Result<std::vector<CudaDevice>> cuda_devices();

struct MeasuredDevice {
  std::string name;
  int count = 1;  // of such devices on this host
  kernels::Floors floors;
};

// Measures "cpu" (all cores) or "cuda" (the first device). Takes seconds; nothing else should run meanwhile.
Result<MeasuredDevice> measure_device(const std::string& device);

}  // namespace lorikeet::launcher
