// When a request left the queue: its first rows were planned.
#pragma once

#include <chrono>

#include "engine/ids.h"

namespace lorikeet::actors {

struct StartedRequest {
  engine::SequenceId id;
  std::chrono::steady_clock::time_point when;
};

}  // namespace lorikeet::actors
