// SIGINT and SIGTERM ask a running server to stop; SIGPIPE is ignored (a closed output is an error where it is
// written).
#pragma once

#include "actors/supervisor/server.h"

namespace lorikeet::launcher {

// While it lives, the signals go to `server`. One at a time.
class StopSignals {
 public:
  explicit StopSignals(actors::Server& server);
  ~StopSignals();
  StopSignals(const StopSignals&) = delete;
  StopSignals& operator=(const StopSignals&) = delete;

  int received() const;  // the signal; 0: none
};

}  // namespace lorikeet::launcher
