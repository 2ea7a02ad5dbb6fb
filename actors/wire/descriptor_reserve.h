// File descriptors as something that runs out: clients' connections take them, and so do ranks and adapters.
#pragma once

#include <sys/resource.h>

#include <cstddef>
#include <utility>

namespace lorikeet::actors {

// Allows this process and those that it starts as many as the system lets it have (Linux starts it with 1,024).
void raise_descriptor_limit();

// Keeps the highest numbers back, so that one who must have a descriptor finds one when everybody else finds none.
// Threads: one.
class DescriptorReserve {
 public:
  explicit DescriptorReserve(size_t count);

  // Runs what must have a descriptor.
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
