// The head's log: one line per request that has ended, and every ten seconds the server's throughput, as in vLLM.
//
// Lines go to standard error through a thread of spdlog's; when nobody reads them, the oldest are dropped and nobody
// waits.
#pragma once

#include <atomic>
#include <chrono>
#include <cstdint>
#include <memory>
#include <mutex>
#include <string>
#include <string_view>
#include <vector>

#include "actors/wire/options.h"
#include "actors/wire/server_status.h"
#include "comm/client/client_messages.h"

namespace spdlog {
class logger;
namespace details {
class thread_pool;
}
}  // namespace spdlog

namespace lorikeet::actors {

struct EndedRequest {
  std::string id;       // the client's own
  std::string adapter;  // empty: the base model
  std::string reason;   // stop, length, abort, error
  std::string error;    // its sentence, where it has one
  int status = 200;     // as HTTP has it
  bool client_gone = false;
  int32_t prompt_tokens = 0, cached_tokens = 0, tokens = 0;
  std::chrono::nanoseconds to_first_token{0}, total{0};
};

// Adds a failure's sentence and its HTTP status.
void add_failure(const comm::Failure& failure, EndedRequest& ended);

// What a client wanted of an adapter, and what came of it.
struct AdapterEvent {
  std::string action;  // load, unload, pin, unpin, warm
  std::string name, path;
  std::string code;     // why not; empty: it is done
  std::string message;  // a sentence
  std::chrono::nanoseconds took{0};
};

std::string adapter_line(const AdapterEvent& event, bool as_json);

// As `as_json` or as text: "request chatcmpl-1/0: length, adapter moby, ...".
std::string request_line(const EndedRequest& request, bool as_json);

// What the server did between two snapshots; empty where it did nothing, and nothing runs or waits.
std::string throughput_line(const ServingStatus& before, const ServingStatus& after, std::chrono::nanoseconds between);

// Threads: any.
class RequestLog {
 public:
  explicit RequestLog(const LogOptions& options);
  ~RequestLog();  // as close(), with a second's patience

  // Waits until all lines have been written, for `patience` at most, since the reader may have stopped. Later lines are
  // dropped. For the end of the process.
  void close(std::chrono::milliseconds patience);

  void ended(const EndedRequest& request);
  void changed(const AdapterEvent& event);
  void throughput(const std::string& line);
  // Unknown fields of a request's body, at level debug.
  void passed_over(const std::string& id, const std::vector<std::string>& fields);

 private:
  const LogOptions options_;
  std::shared_ptr<spdlog::logger> logger_;
  std::mutex mutex_;
  std::shared_ptr<spdlog::details::thread_pool> pool_;  // null: closed
  std::atomic<bool> open_{false};
};

}  // namespace lorikeet::actors
