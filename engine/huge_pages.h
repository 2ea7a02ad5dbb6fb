// Memory for large arrays that are read at random, in pages of 2 MiB where the system has them: with hundreds of thousands
// of KV blocks a TLB miss costs more than the cache line.
#pragma once

#include <sys/mman.h>

#include <cstddef>
#include <cstdlib>
#include <new>
#include <vector>

namespace lorikeet::engine {

template <class T>
class HugePageAllocator {
 public:
  using value_type = T;

  HugePageAllocator() = default;
  template <class U>
  HugePageAllocator(const HugePageAllocator<U>&) {}  // NOLINT: as the standard asks of allocators

  T* allocate(size_t count) {
    const size_t bytes = count * sizeof(T);
    const size_t alignment = bytes < kPage ? kLine : kPage;
    const size_t rounded = (bytes + alignment - 1) / alignment * alignment;
    void* memory = std::aligned_alloc(alignment, rounded);
    if (memory == nullptr) throw std::bad_alloc();
    if (alignment == kPage) madvise(memory, rounded, MADV_HUGEPAGE);  // small pages do where there are no others
    return static_cast<T*>(memory);
  }
  void deallocate(T* memory, size_t) { std::free(memory); }

  bool operator==(const HugePageAllocator&) const { return true; }

 private:
  static constexpr size_t kPage = size_t{2} << 20, kLine = 64;
};

template <class T>
using HugeVector = std::vector<T, HugePageAllocator<T>>;

}  // namespace lorikeet::engine
