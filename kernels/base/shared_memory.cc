#include "kernels/base/shared_memory.h"

#include <fcntl.h>
#include <glog/logging.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cerrno>
#include <cstring>

#include "kernels/base/anonymous_file.h"

namespace lorikeet::kernels {
namespace {

constexpr int kSeals = F_SEAL_SEAL | F_SEAL_SHRINK | F_SEAL_GROW;

}  // namespace

Result<SharedMemory> SharedMemory::make(const std::string& name, uint64_t bytes) {
  auto file = make_anonymous_file(name);
  if (!file) return tl::unexpected(file.error());
  SharedMemory memory;
  memory.descriptor_ = *std::move(file);
  if (ftruncate(memory.descriptor_.get(), static_cast<off_t>(bytes)) != 0 ||
      fcntl(memory.descriptor_.get(), F_ADD_SEALS, kSeals) != 0) {
    return fail("{} bytes of memory that outlives a process cannot be had: {}", bytes, std::strerror(errno));
  }
  if (auto mapped = memory.map(bytes); !mapped) return tl::unexpected(mapped.error());
  return memory;
}

Result<SharedMemory> SharedMemory::attach(Descriptor descriptor, uint64_t bytes) {
  const auto size = shared_size(descriptor);
  if (!size) return tl::unexpected(size.error());
  if (*size != bytes) return fail("shared memory of {} bytes, not of {}", *size, bytes);
  SharedMemory memory;
  memory.descriptor_ = std::move(descriptor);
  if (auto mapped = memory.map(bytes); !mapped) return tl::unexpected(mapped.error());
  return memory;
}

Result<void> SharedMemory::map(uint64_t bytes) {
  if (bytes == 0) return fail("shared memory is empty");
  void* data = mmap(nullptr, bytes, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_NORESERVE, descriptor_.get(), 0);
  if (data == MAP_FAILED) return fail("{} bytes of shared memory cannot be mapped: {}", bytes, std::strerror(errno));
  data_ = static_cast<unsigned char*>(data);
  size_ = bytes;
  return {};
}

void SharedMemory::unmap() {
  if (data_ != nullptr) CHECK_EQ(munmap(data_, size_), 0);
}

Result<uint64_t> shared_size(const Descriptor& descriptor) {
  const int seals = fcntl(descriptor.get(), F_GET_SEALS);
  if (seals < 0 || (seals & (kSeals | F_SEAL_WRITE)) != kSeals) {
    return fail("the descriptor is not one of shared memory");
  }
  struct stat info {};
  if (fstat(descriptor.get(), &info) != 0 || info.st_size < 0) {
    return fail("the size of shared memory: {}", std::strerror(errno));
  }
  return static_cast<uint64_t>(info.st_size);
}

}  // namespace lorikeet::kernels
