// The supervisor of a host that lends its devices to a head on another one. It dials, is admitted, and starts, tells and
// kills ranks as the head's supervisor says.
//
//   dialling --admitted--> lending --the link is lost--> (its ranks are killed) --> dialling, with growing pauses
//
// So it outlives the head: the next one at the same address finds it. Whatever its ranks did belongs to an epoch that has
// ended for the others, too.
#pragma once

#include <functional>
#include <memory>
#include <string>

#include "actors/supervisor/cluster_options.h"
#include "actors/supervisor/server.h"
#include "kernels/base/error.h"

namespace lorikeet::actors {

// As a Server, it runs until it is asked to stop. progress: sentences for people, on its threads. program: what ranks are;
// this one, but for tests. Errors: the certificates, the token, or the interface.
Result<std::unique_ptr<Server>> start_host_supervisor(const WorkerOptions& options,
                                                      std::function<void(const std::string&)> progress,
                                                      const std::string& program = "/proc/self/exe");

}  // namespace lorikeet::actors
