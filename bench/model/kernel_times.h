// Times of every kernel of a run, captured graphs included, through CUPTI's activity records.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "kernels/base/error.h"

namespace lorikeet::bench {

struct KernelTime {
  std::string name;  // without namespaces, template arguments and parameters; "copy" and "fill" for the copy engines
  int64_t count = 0;
  double us = 0;        // from begin to end; kernels that overlap count twice
  double added_us = 0;  // by which the kernels' ends lie behind the latest end before: these sum up to the run's time
};

// Only one at a time. It must be made before the first call of the CUDA runtime, so that graphs are traced too; then
// everything runs a little slower.
class KernelTimes {
 public:
  // Fails where libcupti.so is not found or refuses the device.
  static Result<KernelTimes> make();

  // What has run between the two calls, the kernel with the most added time first. The device must be idle at both.
  void begin();
  std::vector<KernelTime> end();
};

}  // namespace lorikeet::bench
