// Memory of the host that outlives the process that made it and is written by whoever maps it: it stays as long as any
// process maps it or holds its descriptor (memfd_create(2)). Its size is sealed, so that no other process can take pages
// away from under a mapping. What never changes once it is written is better off in kernels/base/resident_memory.h.
//
// Threads: as any memory. What it holds after its writer's death is what that one had written, to the last word.
#pragma once

#include <cstdint>
#include <string>
#include <utility>

#include "kernels/base/descriptor.h"
#include "kernels/base/error.h"

namespace lorikeet::kernels {

class SharedMemory {
 public:
  SharedMemory() = default;
  ~SharedMemory() { unmap(); }
  SharedMemory(SharedMemory&& other) noexcept
      : descriptor_(std::move(other.descriptor_)),
        data_(std::exchange(other.data_, nullptr)),
        size_(std::exchange(other.size_, 0)) {}
  SharedMemory& operator=(SharedMemory&& other) noexcept {
    std::swap(descriptor_, other.descriptor_);
    std::swap(data_, other.data_);
    std::swap(size_, other.size_);
    return *this;
  }

  // `bytes` of zeros; pages that nobody touches cost nothing. `name` is what /proc/PID/maps calls it.
  static Result<SharedMemory> make(const std::string& name, uint64_t bytes);

  // Maps what another process has made. Fails for whatever is not that, or has another size.
  static Result<SharedMemory> attach(Descriptor descriptor, uint64_t bytes);

  // Page-aligned.
  unsigned char* data() const { return data_; }
  uint64_t size() const { return size_; }
  const Descriptor& descriptor() const { return descriptor_; }

 private:
  Result<void> map(uint64_t bytes);
  void unmap();

  Descriptor descriptor_;
  unsigned char* data_ = nullptr;
  uint64_t size_ = 0;
};

// The size of shared memory, without mapping it; fails for every other descriptor.
Result<uint64_t> shared_size(const Descriptor& descriptor);

}  // namespace lorikeet::kernels
