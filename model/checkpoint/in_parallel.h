// Runs short work on a few threads that live for the call: reading and packing an adapter.
#pragma once

#include <cstddef>
#include <functional>

namespace lorikeet::model {

// Calls work(i) once for every i below `count`, lower i first, on up to `threads` threads, one of which is the caller's.
// Returns when all calls have returned. If the system gives fewer threads, fewer do the work. If work throws (for want of
// memory), calls that have not begun are skipped, and the exception is thrown once all others have returned.
void in_parallel(size_t count, int threads, const std::function<void(size_t)>& work);

}  // namespace lorikeet::model
