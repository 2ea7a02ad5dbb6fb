// One HTTP/1.1 request out of the bytes of a connection. No sockets here.
//
// Boost.Beast's parser reads, this class bounds what it keeps and refuses what another server in front of this one
// might read in another way: two lengths, a length beside Transfer-Encoding, encodings other than chunked, lines
// without CR, lines that go on (obs-fold), a second Host. Trailers are read and thrown away.
#pragma once

#include <cstddef>
#include <memory>
#include <string>
#include <string_view>
#include <tl/expected.hpp>

#include "comm/http/http_messages.h"

namespace lorikeet::comm {

class RequestParser {
 public:
  struct Limits {
    size_t head_bytes = 0;  // request line and headers
    size_t headers = 0;     // trailers included
    size_t body_bytes = 0;
  };
  struct Refusal {
    int status = 400;
    std::string message;
  };

  explicit RequestParser(const Limits& limits);
  ~RequestParser();

  // Takes what belongs to this request from the front of `bytes` and gives how many bytes that were. Less than all
  // before the request is done: what is left is to be given again with more behind it. Stops once at the end of the
  // head. After a refusal the connection's bytes mean nothing any more.
  tl::expected<size_t, Refusal> put(std::string_view bytes);

  bool has_head() const;
  bool done() const;
  bool keep_alive() const;        // after the head: whether the client wants to send another request
  bool is_http_1_0() const;       // such a client knows no chunks
  bool expects_continue() const;  // the client waits for "100 Continue" before it sends the body

  HttpRequest& request();

 private:
  struct Impl;
  std::unique_ptr<Impl> impl_;
};

}  // namespace lorikeet::comm
