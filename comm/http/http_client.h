// A client of an HTTP/1.1 server, with many exchanges at once on the caller's thread: answers are handed on piece by piece,
// as they come. Connections are kept for the next exchange. With TLS the server's certificate is checked for its name.
#pragma once

#include <chrono>
#include <cstdint>
#include <functional>
#include <memory>
#include <optional>
#include <string>
#include <string_view>

#include "comm/http/http_messages.h"
#include "kernels/base/error.h"

namespace lorikeet::comm {

// Whom a client believes, and who it is. Files are in PEM.
struct ClientTls {
  std::string ca_file;                     // that servers' certificates are of; empty: the system's
  bool insecure = false;                   // any server is believed
  std::string certificate_file, key_file;  // its own; empty: none, and a key beside its certificate
};

// Threads: one thread uses a client. Callbacks are called in run_once() and may use the client.
class HttpClient {
 public:
  using ExchangeId = uint64_t;
  using Clock = std::chrono::steady_clock;

  struct Callbacks {
    std::function<void(std::string_view piece)> on_body;  // of an answer with the status 200
    // Once. Another status than 200: with the body, up to a MiB of it. 0: there is no whole answer; `text` says why.
    std::function<void(int status, const std::string& text)> on_end;
  };

  // Looks the host up; nothing is sent. tls: none: in the clear. Errors: there is no such host, a file of `tls`.
  static Result<std::unique_ptr<HttpClient>> make(const std::string& host, const std::string& port,
                                                  const std::optional<ClientTls>& tls = {});
  virtual ~HttpClient() = default;

  // method, target, headers and body of `request` are sent.
  virtual ExchangeId start(const HttpRequest& request, Callbacks callbacks) = 0;

  // Ends its connection; its callbacks are not called any more.
  virtual void drop(ExchangeId exchange) = 0;

  // Goes on with whatever is ready, else waits for something until `deadline`. Returns at once where nothing runs.
  virtual void run_once(Clock::time_point deadline) = 0;
};

}  // namespace lorikeet::comm
