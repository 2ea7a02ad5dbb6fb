// What the launcher starts: the supervisor, and through it every other process of the server.
#pragma once

#include <functional>
#include <memory>
#include <string>

#include "actors/supervisor/cluster_options.h"
#include "actors/wire/options.h"
#include "kernels/base/error.h"

namespace lorikeet::actors {

// Where a server is and what it can hold.
struct ServerReady {
  std::string zmq_address;
  int32_t http_port = 0;  // 0: it opens no HTTP door
  int64_t kv_cache_tokens = 0;
};

// What the supervisor tells its caller. Called on the supervisor's threads; must not block.
struct ServerCallbacks {
  std::function<void(const std::string& line)> on_progress;  // a sentence for people: where, how much
  std::function<void(const std::string& why)> on_failure;    // what went wrong: a rank, the head, the whole server
  // So many layers of a rank's weights are loaded; begins again when ranks are started again.
  std::function<void(int32_t rank, int32_t done, int32_t total)> on_loading;
  std::function<void(const ServerReady&)> on_ready;  // requests are served from now on; once
};

// The supervisor: starts the head and the ranks as child processes (`/proc/self/exe head`, `... rank`), watches them,
// and leaves none behind. Returns when `stop` has been requested (request_stop, or the signals that the launcher routes
// to it) or when the server cannot go on.
class Server {
 public:
  // With more than one node, ranks run on hosts that join (actors/supervisor/cluster_processes.h).
  static Result<std::unique_ptr<Server>> start(const ServerOptions& options, ServerCallbacks callbacks,
                                               const ClusterOptions& cluster = {});
  virtual ~Server() = default;  // stops and waits
  // Any thread, and async-signal-safe. Lets running requests end within the drain timeout of the options; called a second
  // time, ends at once.
  virtual void request_stop() = 0;
  virtual int wait() = 0;  // until stopped; 0, or 1 with the reason told through on_failure
};

// Waits for the hosts of a cluster as a server does, and says where its ranks would be, without starting any.
Result<std::string> dry_run_placement(const ServerOptions& options, const ClusterOptions& cluster,
                                      std::function<void(const std::string&)> progress);

}  // namespace lorikeet::actors
