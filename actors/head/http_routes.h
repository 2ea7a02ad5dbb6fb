// Which paths the HTTP door has, and what is refused by a request's head alone: strangers, unknown paths, methods,
// bodies that are not JSON. It runs on the HTTP server's thread, before a body is read.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "comm/http/http_messages.h"

namespace lorikeet::actors {

enum class HttpRoute : uint8_t {
  completions,
  chat_completions,
  models,
  model,  // one of them: the rest of the path is its name
  load_adapter,
  unload_adapter,
  adapters,
  pin_adapter,  // one of them: the path has its name before the last part
  unpin_adapter,
  warm_adapter,
  tokenize,
  detokenize,
  health,
  ping,
  version,
  metrics,
};

// The key that a client gives, as "Authorization: Bearer KEY". Threads: const methods from any.
class HttpKeys {
 public:
  explicit HttpKeys(const std::vector<std::string>& keys);

  // Without keys everybody is let in. The time that it takes says nothing about the keys but how many there are.
  bool accepts(std::string_view authorization) const;

 private:
  std::vector<std::string> digests_;  // SHA-256 of each key
};

// Threads: const methods from any.
class HttpRoutes {
 public:
  struct Options {
    std::vector<std::string> api_keys;
    std::string root_path;                     // a prefix of the path that a proxy has left in; empty: none
    std::vector<std::string> allowed_origins;  // of web pages that may ask; "*": all
  };
  struct Found {
    HttpRoute route = HttpRoute::health;
    std::string name;  // that the path has in it, decoded
  };

  explicit HttpRoutes(Options options);

  std::optional<Found> find(const comm::HttpRequest& request) const;

  // The answer to a request that is refused by its head, or that is whole without a body (a browser's question whether
  // it may ask).
  std::optional<comm::HttpAnswer> refuse(const comm::HttpRequest& head) const;

  // What every answer carries: the request's id, and for a web page that may ask, that it may.
  comm::HttpHeaders common_headers(const comm::HttpRequest& head, const std::string& request_id) const;

 private:
  bool is_allowed_origin(std::string_view origin) const;

  const Options options_;
  const HttpKeys keys_;
};

// The client's X-Request-Id where it is at most 128 visible ASCII characters, else one that is made.
std::string request_id_of(const comm::HttpRequest& head);

}  // namespace lorikeet::actors
