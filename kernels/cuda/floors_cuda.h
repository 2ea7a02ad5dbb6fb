// kernels/base/floors.h of a CUDA device: reading with bulk copies on Hopper and plain loads elsewhere, copying on the
// device, cuBLASLt's product of two random 8192 x 8192 matrices.
#pragma once

#include <cstdint>
#include <string>

#include "kernels/base/device.h"
#include "kernels/base/floors.h"

namespace lorikeet::kernels {

// For a process that has used no device and will use none: leaves `device` as if this had never run.
struct MeasuredDevice {
  std::string name;
  Floors floors;
};
Result<MeasuredDevice> measure_cuda_device(int device);

// Of the calling thread's device. Medians of repeated passes; takes a few seconds and up to 4 GiB of device memory.
// Fails where the memory cannot be had.
Result<Floors> measure_cuda_floors(const Stream& stream);

// The memory's alone. `bytes`: of the buffer that is read, a multiple of 32 KiB.
Result<Floors> measure_cuda_memory(uint64_t bytes, const Stream& stream);

}  // namespace lorikeet::kernels
