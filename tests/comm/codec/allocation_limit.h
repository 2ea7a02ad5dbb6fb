// Notices allocations that hostile input should not have caused. Link allocation_limit.cc, which replaces operator new.
#pragma once

#include <atomic>
#include <cstddef>

namespace lorikeet::comm {

extern std::atomic<size_t> g_largest_allocation;  // in bytes, since it was last set to 0

}  // namespace lorikeet::comm
