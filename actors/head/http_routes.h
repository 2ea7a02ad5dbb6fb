// Which paths the HTTP door has, and what is refused by a request's head alone: strangers, unknown paths, methods,
// bodies that are not JSON. It runs on the HTTP server's thread, before a body is read.
#pragma once

#include <cstdint>
#include <memory>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "actors/head/access.h"
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
  load,
  reset_prefix_cache,
  metrics,
  openapi,
  page,  // for people
};

// Threads: const methods from any.
class HttpRoutes {
 public:
  struct Options {
    std::shared_ptr<const Access> access;      // null: everybody is let in
    std::string root_path;                     // a prefix of the path that a proxy has left in; empty: none
    std::vector<std::string> allowed_origins;  // of web pages that may ask; "*": all
  };
  struct Found {
    HttpRoute route = HttpRoute::health;
    std::string name;  // that the path has in it, decoded
  };

  struct Served {
    std::string_view path;     // * stands for a name
    std::string_view methods;  // separated by commas, as the header Allow wants them
  };

  explicit HttpRoutes(Options options);

  static std::vector<Served> all();

  std::optional<Found> find(const comm::HttpRequest& request) const;

  // What the client may do; null: a stranger.
  std::shared_ptr<const Grant> grant_of(const comm::HttpRequest& head) const;

  // The answer to a request that is refused by its head, or that is whole without a body (a browser's question whether
  // it may ask).
  std::optional<comm::HttpAnswer> refuse(const comm::HttpRequest& head) const;

  // What every answer carries: the request's id, and for a web page that may ask, that it may.
  comm::HttpHeaders common_headers(const comm::HttpRequest& head, const std::string& request_id) const;

 private:
  bool is_allowed_origin(std::string_view origin) const;
  bool may_change(
      const comm::HttpRequest& head) const;  // false for web pages of other origins, as far as the head tells

  const Options options_;
};

// The client's X-Request-Id where it is at most 128 visible ASCII characters, else one that is made.
std::string request_id_of(const comm::HttpRequest& head);

}  // namespace lorikeet::actors
