// Requests and answers as the HTTP server hands them out and takes them. No sockets here.
#pragma once

#include <string>
#include <string_view>
#include <utility>
#include <vector>

namespace lorikeet::comm {

using HttpHeaders = std::vector<std::pair<std::string, std::string>>;

struct HttpRequest {
  std::string method;   // as it was sent, such as GET
  std::string target;   // path and query, as they were sent
  HttpHeaders headers;  // names in lower case, in the order in which they came
  std::string body;
  std::string peer;  // the client's address and port

  // The first header of that name (given in lower case); empty where there is none.
  std::string_view header(std::string_view name) const;

  // The target without its query, and without scheme and host where it was sent with them.
  std::string_view path() const;
};

struct HttpAnswer {
  int status = 200;
  HttpHeaders headers;  // without those of the framing: Content-Length, Transfer-Encoding, Connection, Date
  std::string body;
};

// How the client finds the end of an answer's body.
enum class HttpFraming { length, chunked, until_close };

// The head of an answer, up to the empty line. Control characters in header values become spaces.
std::string http_head_text(const HttpAnswer& answer, HttpFraming framing, bool keep_alive);

// A piece of a chunked body. An empty piece would be the end: use kHttpLastChunk for that.
std::string http_chunk(std::string_view piece);
inline constexpr std::string_view kHttpLastChunk = "0\r\n\r\n";

}  // namespace lorikeet::comm
