// An HTTP/1.1 server on a thread of its own (Boost.Beast, Asio): connections, framing, limits, TLS. What a request
// means is its owner's to know: whole requests come out, answers go in from any thread.
//
// Every connection has a deadline in every state, every queue a bound in bytes. What cannot be read is refused with a
// sentence and the connection ends; a client that does not read its answer, or is gone, is reported by on_gone.
#pragma once

#include <chrono>
#include <cstdint>
#include <functional>
#include <memory>
#include <optional>
#include <string>

#include "comm/http/http_messages.h"
#include "kernels/base/error.h"

namespace lorikeet::comm {

using ExchangeId = uint64_t;  // one request and its answer; never reused

struct TlsOptions {
  std::string key_file, certificate_file;  // PEM
  std::string ca_file;                     // of clients' certificates; empty: the system's
  enum class ClientCertificates : uint8_t { none, optional, required } clients = ClientCertificates::none;
};

struct HttpServerOptions {
  std::string host = "127.0.0.1";
  uint16_t port = 8000;  // 0 picks one
  std::optional<TlsOptions> tls;

  // What its owner allows; none of it may be 0.
  size_t max_head_bytes = 0;
  size_t max_headers = 0;
  size_t max_body_bytes = 0;
  size_t max_all_body_bytes = 0;  // of all requests that have no whole answer yet; past it 503
  size_t max_pending_bytes = 0;   // of an answer that its client has not read; past it the client is dropped
  size_t max_connections = 0;     // past it one that rests is closed; where none does, the new one

  std::chrono::milliseconds head_timeout{0};   // for a whole head, and for TLS's handshake
  std::chrono::milliseconds body_timeout{0};   // for a whole body
  std::chrono::milliseconds idle_timeout{0};   // between two requests
  std::chrono::milliseconds write_timeout{0};  // without a byte that the client takes, while some wait
};

// Called on the server's thread; they must not block.
struct HttpCallbacks {
  // A head has come: an answer refuses the request before its body is read. May be empty.
  std::function<std::optional<HttpAnswer>(const HttpRequest& head)> on_head;
  std::function<void(ExchangeId, HttpRequest)> on_request;
  std::function<void(ExchangeId)> on_gone;  // nobody reads the answer any more, and it was not whole yet
  // The answer to what could not be read. Empty: the sentence as plain text.
  std::function<HttpAnswer(int status, const std::string& sentence)> refusal;
};

class HttpServer {
 public:
  static Result<std::unique_ptr<HttpServer>> start(const HttpServerOptions& options, HttpCallbacks callbacks);
  virtual ~HttpServer() = default;  // answers that were whole before have half a second to leave

  virtual uint16_t port() const = 0;       // that was taken
  virtual std::string url() const = 0;     // such as http://127.0.0.1:8000
  virtual size_t connections() const = 0;  // open now

  // Threads: any. What belongs to an exchange that is over is dropped.
  virtual void answer(ExchangeId exchange, HttpAnswer answer) = 0;  // a whole one
  virtual void begin(ExchangeId exchange, HttpAnswer head) = 0;     // one in pieces; head.body is the first, if any
  virtual void write(ExchangeId exchange, std::string piece) = 0;
  virtual void end(ExchangeId exchange) = 0;
};

}  // namespace lorikeet::comm
