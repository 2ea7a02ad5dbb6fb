// A handful of threads for work that is there now and then: reading and packing an adapter.
#pragma once

#include <cstddef>
#include <functional>

namespace lorikeet::model {

// Calls work(i) once for every i below `count`, by up to `threads` threads of which the caller is one, lower i first;
// returns when all have returned. Where no more threads can be had, fewer do it. What work throws (a host without memory)
// is thrown by the call, once all have returned; what had not begun by then is left out.
void in_parallel(size_t count, int threads, const std::function<void(size_t)>& work);

}  // namespace lorikeet::model
