// The settings of CAF that our processes share, and what of its interface is bound to version 0.17.
#pragma once

#include <caf/all.hpp>
#include <cstddef>

#include "actors/wire/options.h"

namespace lorikeet::actors {

// How a process takes part.
enum class Networking : uint8_t {
  none,
  connected,  // over connections that it is given (actors/wire/caf_connection.h)
};

// max-threads is pinned: actors only translate and send, the cores belong to the kernels.
class SystemConfig : public caf::actor_system_config {
 public:
  SystemConfig(const ServerOptions& options, Networking networking, size_t threads);
};

}  // namespace lorikeet::actors
