// The CUDA devices of this host, and how they reach each other.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "kernels/base/error.h"

namespace lorikeet::kernels {

struct HostDevice {
  std::string name;
  uint64_t total_bytes = 0;
  std::vector<uint8_t> reaches;        // [other device]: its memory without the host's
  std::vector<uint8_t> reaches_fully;  // [other device]: and with atomics, as over NVLink and not over PCIe
};

// All of them, without taking one into use. Errors as device_count's (kernels/base/device.h).
Result<std::vector<HostDevice>> host_devices();

}  // namespace lorikeet::kernels
