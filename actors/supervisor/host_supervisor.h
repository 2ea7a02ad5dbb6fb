// The supervisor of a host that lends its devices to a head on another host. It connects, is admitted, and starts, orders
// and kills ranks as the head's supervisor says.
//
//   dialling --admitted--> lending --the link is lost--> (its ranks are killed) --> dialling, with growing pauses
//
// So it outlives the head and connects to the next one at the same address. Its ranks need not be kept: their epoch has
// ended for the other ranks, too.
#pragma once

#include <functional>
#include <memory>
#include <string>

#include "actors/supervisor/cluster_options.h"
#include "actors/supervisor/server.h"
#include "kernels/base/error.h"

namespace lorikeet::actors {

// As a Server, it runs until it is asked to stop. progress: called on its threads with sentences for people. program: run as
// ranks; this program, except in tests. Errors: the certificates, the token, the interface, or too few files that may be
// open.
Result<std::unique_ptr<Server>> start_host_supervisor(const WorkerOptions& options,
                                                      std::function<void(const std::string&)> progress,
                                                      const std::string& program = "/proc/self/exe");

}  // namespace lorikeet::actors
