// File descriptors can run out: clients' connections take them, and so do ranks and adapters.
#pragma once

#include <sys/resource.h>

#include <cstddef>
#include <utility>

#include "kernels/base/error.h"

namespace lorikeet::actors {

// With fewer, libraries of the head end it before it can say why.
inline constexpr rlim_t kLeastDescriptors = 32;

// Allows this process and those that it starts as many as the system lets it have (Linux starts it with 1,024). Errors:
// these are fewer than kLeastDescriptors.
Result<void> raise_descriptor_limit();

// Keeps the highest descriptors back, for work that must have one when all others are taken.
// Threads: one.
class DescriptorReserve {
 public:
  explicit DescriptorReserve(size_t count);

  // Runs such work.
  template <class Work>
  auto open_for(Work work) {
    set_limit(all_);
    auto result = work();
    set_limit(others_);
    return result;
  }

 private:
  static void set_limit(rlim_t limit);

  rlim_t all_ = RLIM_INFINITY, others_ = RLIM_INFINITY;
};

}  // namespace lorikeet::actors
