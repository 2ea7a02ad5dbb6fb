// Memory of the host that outlives the process that made it: it stays as long as any process holds its descriptor,
// which travels over a UNIX socket (SCM_RIGHTS). Sources: memfd_create(2), fcntl(2) "File Sealing".
//
//   make, write ... write, seal       by its maker
//   attach                            by whoever is handed the descriptor
//
// Sealed memory cannot be written to, grown or cut by anybody, its maker included; the kernel keeps to that. Whoever
// attaches therefore reads what was sealed, and no digest over gigabytes has to show it. What the bytes say is to be
// checked all the same: a descriptor proves nothing of who has sealed it.
//
// Threads: one at a time; bytes() from any.
#pragma once

#include <cstdint>
#include <memory>
#include <span>
#include <string>
#include <utility>

#include "kernels/base/descriptor.h"
#include "kernels/base/error.h"

namespace lorikeet::kernels {

class ResidentMemory {
 public:
  ResidentMemory() = default;
  ~ResidentMemory() { unmap(); }
  ResidentMemory(ResidentMemory&& other) noexcept
      : descriptor_(std::move(other.descriptor_)),
        data_(std::exchange(other.data_, nullptr)),
        size_(std::exchange(other.size_, 0)) {}
  ResidentMemory& operator=(ResidentMemory&& other) noexcept {
    std::swap(descriptor_, other.descriptor_);
    std::swap(data_, other.data_);
    std::swap(size_, other.size_);
    return *this;
  }

  // Empty memory that can be written and is not mapped. `name` is what /proc/PID/maps calls it. Fails where the system
  // has no such memory.
  static Result<ResidentMemory> make(const std::string& name);

  // Puts bytes where they belong, and grows the memory up to their end; what was never written is 0. Fails where the
  // host has no more.
  Result<void> write(uint64_t offset, std::span<const uint8_t> bytes);

  // From here on it can be read by everybody and written by nobody.
  Result<void> seal();

  // Maps what another process has sealed. Fails for whatever is no sealed memory, or is empty.
  static Result<ResidentMemory> attach(Descriptor descriptor);

  // Once sealed; its pages come into this process as they are read.
  std::span<const uint8_t> bytes() const { return {data_, size_}; }

  // Once sealed: copies its pages into large ones (2 MiB on x86), for this process and all that attach later. What is
  // read over and over is then read faster, as its addresses are found sooner. Begins with no more of them after a
  // second and three for each GiB; false where that did not do, the system has no large pages to give, or is older than Linux 6.1: what is
  // left stays in small ones. Source: madvise(2), MADV_COLLAPSE.
  bool use_large_pages() const;

  const Descriptor& descriptor() const { return descriptor_; }

 private:
  Result<void> map();
  void unmap();

  Descriptor descriptor_;
  const uint8_t* data_ = nullptr;  // null: not mapped
  uint64_t size_ = 0;
};

// Gives a shared, writable mapping of `file`, from `offset` on, all of its pages: memory that cannot be had is an error
// here, and no signal where it is written to. Sources: madvise(2), MADV_POPULATE_WRITE; fallocate(2), for kernels before
// 5.14.
Result<void> populate(std::span<uint8_t> mapped, const Descriptor& file, uint64_t offset);

// The size of sealed memory, without mapping it; fails for every other descriptor.
Result<uint64_t> sealed_size(const Descriptor& descriptor);

}  // namespace lorikeet::kernels
