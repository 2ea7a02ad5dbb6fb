#include "kernels/base/resident_memory.h"

#include <fcntl.h>
#include <glog/logging.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <chrono>
#include <cstring>

#include "kernels/base/anonymous_file.h"

namespace lorikeet::kernels {
namespace {

constexpr int kSeals = F_SEAL_SEAL | F_SEAL_SHRINK | F_SEAL_GROW | F_SEAL_WRITE;

#ifndef MADV_POPULATE_WRITE
constexpr int MADV_POPULATE_WRITE = 23;
#endif
#ifndef MADV_COLLAPSE
constexpr int MADV_COLLAPSE = 25;
#endif

constexpr uint64_t kLargePage = 2 << 20;

uint64_t up_to(uint64_t size, uint64_t multiple) {
  return (size + multiple - 1) / multiple * multiple;
}

uint64_t whole_pages(uint64_t size) {
  return up_to(size, static_cast<uint64_t>(sysconf(_SC_PAGESIZE)));
}

// Address space for `size` bytes that begins where a large page does; null where there is none.
uint8_t* reserve(uint64_t size) {
  const uint64_t kept = whole_pages(size), all = kept + kLargePage;
  void* const space = mmap(nullptr, all, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
  if (space == MAP_FAILED) return nullptr;
  auto* const begin = static_cast<uint8_t*>(space);
  const uint64_t before = up_to(reinterpret_cast<uintptr_t>(begin), kLargePage) - reinterpret_cast<uintptr_t>(begin);
  // Trimming splits a mapping, which a process that has too many is refused.
  if (before > 0 && munmap(begin, before) != 0) {
    munmap(begin, all);
    return nullptr;
  }
  if (before < kLargePage && munmap(begin + before + kept, kLargePage - before) != 0) {
    munmap(begin + before, all - before);
    return nullptr;
  }
  return begin + before;
}

}  // namespace

Result<ResidentMemory> ResidentMemory::make(const std::string& name) {
  auto file = make_anonymous_file(name);
  if (!file) return tl::unexpected(file.error());
  ResidentMemory memory;
  memory.descriptor_ = *std::move(file);
  return memory;
}

Result<void> ResidentMemory::write(uint64_t offset, std::span<const uint8_t> bytes) {
  constexpr size_t kAtOnce = 1U << 30;  // a call takes at most 2 GiB
  for (size_t done = 0; done < bytes.size();) {
    const ssize_t count = pwrite(descriptor_.get(), bytes.data() + done, std::min(bytes.size() - done, kAtOnce),
                                 static_cast<off_t>(offset + done));
    if (count < 0 && errno == EINTR) continue;
    if (count < 0) return fail("memory that outlives a process cannot be filled: {}", std::strerror(errno));
    done += static_cast<size_t>(count);
  }
  return {};
}

Result<void> ResidentMemory::seal() {
  if (fcntl(descriptor_.get(), F_ADD_SEALS, kSeals) != 0) {
    return fail("memory that outlives a process cannot be sealed: {}", std::strerror(errno));
  }
  return map();
}

Result<ResidentMemory> ResidentMemory::attach(Descriptor descriptor) {
  ResidentMemory memory;
  memory.descriptor_ = std::move(descriptor);
  if (auto mapped = memory.map(); !mapped) return tl::unexpected(mapped.error());
  return memory;
}

Result<void> ResidentMemory::map() {
  const auto size = sealed_size(descriptor_);
  if (!size) return tl::unexpected(size.error());
  if (*size == 0) return fail("memory that outlives a process is empty");
  uint8_t* const space = *size < kLargePage ? nullptr : reserve(*size);
  // Private, since kernels before 6.7 refuse to share what is sealed, even to read it; the pages are the same.
  void* data = mmap(space, *size, PROT_READ, MAP_PRIVATE | (space == nullptr ? 0 : MAP_FIXED), descriptor_.get(), 0);
  if (data == MAP_FAILED) {
    const int failed = errno;
    if (space != nullptr) CHECK_EQ(munmap(space, whole_pages(*size)), 0);
    return fail("{} bytes of memory cannot be mapped: {}", *size, std::strerror(failed));
  }
  data_ = static_cast<const uint8_t*>(data);
  size_ = *size;
  return {};
}

bool ResidentMemory::use_large_pages() const {
  constexpr uint64_t kAtOnce = 64 << 20;
  const uint64_t whole = size_ / kLargePage * kLargePage;
  const auto deadline = std::chrono::steady_clock::now() + std::chrono::milliseconds(1000 + 3 * (whole >> 20));
  for (uint64_t done = 0; done < whole; done += kAtOnce) {
    if (std::chrono::steady_clock::now() > deadline) return false;
    uint8_t* const at = const_cast<uint8_t*>(data_) + done;
    if (madvise(at, std::min(whole - done, kAtOnce), MADV_COLLAPSE) != 0) return false;
  }
  return true;
}

void ResidentMemory::unmap() {
  if (data_ != nullptr) CHECK_EQ(munmap(const_cast<uint8_t*>(data_), size_), 0);
}

Result<void> populate(std::span<uint8_t> mapped, const Descriptor& file, uint64_t offset) {
  int failed = madvise(mapped.data(), mapped.size(), MADV_POPULATE_WRITE) == 0 ? 0 : errno;
  if (failed == EINVAL) {
    const bool done = fallocate(file.get(), 0, static_cast<off_t>(offset), static_cast<off_t>(mapped.size())) == 0;
    failed = done || errno == EOPNOTSUPP || errno == ENOSYS ? 0 : errno;
  }
  if (failed == 0) return {};
  return fail("{} bytes of memory cannot be had: {}", mapped.size(), std::strerror(failed));
}

Result<uint64_t> sealed_size(const Descriptor& descriptor) {
  const int seals = fcntl(descriptor.get(), F_GET_SEALS);
  if (seals < 0 || (seals & kSeals) != kSeals) return fail("the descriptor is not one of sealed memory");
  struct stat info {};
  if (fstat(descriptor.get(), &info) != 0 || info.st_size < 0) {
    return fail("the size of sealed memory: {}", std::strerror(errno));
  }
  return static_cast<uint64_t>(info.st_size);
}

}  // namespace lorikeet::kernels
