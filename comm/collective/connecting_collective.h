// A communicator that connects while its rank computes already: what does not need it does not wait for it.
#pragma once

#include <chrono>
#include <functional>
#include <memory>

#include "comm/collective/device_collective.h"

namespace lorikeet::comm {

// Runs `connect` on a thread of its own, once, and hands `communicator` on: after `rest`, or as soon as an operation
// wants it. Operations and wait() of what comes back wait until it is connected; check() does not, and throws what `connect` threw once it has. rank(), size() and
// takes_norm() answer at once.
//
// connect: connects `communicator`, or throws CollectiveError; within its own deadline, and soon after abort() of
// `communicator`, which may come from any thread at any time, before `connect` has begun, too. Nothing else of
// `communicator` is called meanwhile.
std::unique_ptr<DeviceCollective> connect_behind(std::unique_ptr<DeviceCollective> communicator,
                                                 std::function<void()> connect,
                                                 std::chrono::milliseconds rest = std::chrono::milliseconds(0));

}  // namespace lorikeet::comm
