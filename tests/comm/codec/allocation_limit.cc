#include "tests/comm/codec/allocation_limit.h"

#include <cstdlib>
#include <new>

namespace lorikeet::comm {

std::atomic<size_t> g_largest_allocation{0};

}  // namespace lorikeet::comm

void* operator new(size_t size) {
  auto& largest_allocation = lorikeet::comm::g_largest_allocation;
  size_t largest = largest_allocation.load(std::memory_order_relaxed);
  while (size > largest && !largest_allocation.compare_exchange_weak(largest, size)) {
  }
  if (void* memory = std::malloc(size == 0 ? 1 : size)) return memory;
  throw std::bad_alloc();
}

void operator delete(void* memory) noexcept {
  std::free(memory);
}
void operator delete(void* memory, size_t) noexcept {
  std::free(memory);
}
