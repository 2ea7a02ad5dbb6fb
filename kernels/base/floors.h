// What a machine gives at the most, measured in the run whose figures stand beside it.
#pragma once

namespace lorikeet::kernels {

struct Floors {
  double read = 0;       // bytes a second, read-only, from a buffer far larger than the caches
  double copy = 0;       // bytes a second, read and written together
  double f16_flops = 0;  // of the library's dense fp16 product; 0: not measured
};

// Of the host's memory, by `threads` threads at once. Best of a few passes. Takes about a second and 512 MiB.
Floors measure_cpu_floors(int threads);

}  // namespace lorikeet::kernels
