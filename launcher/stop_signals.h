// SIGINT, SIGTERM and SIGHUP ask a running server to stop; SIGPIPE is ignored (a closed output is an error where it is
// written). Where SIGHUP was ignored at the start (nohup), it stays so. Several within a quarter of a second are one.
#pragma once

#include "actors/supervisor/server.h"

namespace lorikeet::launcher {

// While it lives, the signals are caught. Make it before anything that must not be left behind. One at a time.
class StopSignals {
 public:
  StopSignals();
  ~StopSignals();
  StopSignals(const StopSignals&) = delete;
  StopSignals& operator=(const StopSignals&) = delete;

  // The signals, earlier ones included, stop `server` from now on. Call with nullptr before the server ends.
  void route_to(actors::Server* server);

  int received() const;   // the last signal; 0: none
  bool insisted() const;  // there was a second one, which ends a server at once
};

}  // namespace lorikeet::launcher
