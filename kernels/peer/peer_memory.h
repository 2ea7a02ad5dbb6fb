// Device memory that processes of one host share: made by one of them, mapped by the others through a file descriptor
// (CUDA's virtual memory management). It stays as long as any process maps it or holds its descriptor.
//
// Threads and errors: as kernels/base/device.h; what the driver refuses is a value with its reason.
#pragma once

#include <cstdint>
#include <string>
#include <utility>

#include "kernels/base/descriptor.h"
#include "kernels/base/error.h"

namespace lorikeet::kernels {

class PeerMemory {
 public:
  PeerMemory() = default;
  ~PeerMemory() { release(); }
  PeerMemory(PeerMemory&& other) noexcept
      : address_(std::exchange(other.address_, 0)),
        handle_(std::exchange(other.handle_, 0)),
        bytes_(std::exchange(other.bytes_, 0)) {}
  PeerMemory& operator=(PeerMemory&& other) noexcept {
    std::swap(address_, other.address_);
    std::swap(handle_, other.handle_);
    std::swap(bytes_, other.bytes_);
    return *this;
  }

  // On the calling thread's device, rounded up to what the driver hands out; the content is undefined.
  static Result<PeerMemory> make(uint64_t bytes);
  // Maps what another process has made of at least `bytes`, for the calling thread's device to read and write.
  static Result<PeerMemory> attach(const Descriptor& descriptor, uint64_t bytes);

  // A descriptor for another process of this host.
  Result<Descriptor> share() const;

  unsigned char* data() const { return reinterpret_cast<unsigned char*>(address_); }
  uint64_t bytes() const { return bytes_; }  // as rounded up

 private:
  Result<void> map();
  void release();

  uint64_t address_ = 0;  // CUdeviceptr
  uint64_t handle_ = 0;   // CUmemGenericAllocationHandle
  uint64_t bytes_ = 0;
};

// Where the calling thread's device is on the host's bus: the same text in every process.
Result<std::string> device_bus_address();

// Whether the calling thread's device reads and writes the memory of the device at that address directly. False also
// where this process does not see that device.
bool reaches_device_at(const std::string& bus_address);

}  // namespace lorikeet::kernels
