// The bytes of one connection, plain or through TLS.
#pragma once

#include <boost/asio/buffer.hpp>
#include <boost/asio/ip/tcp.hpp>
#include <boost/asio/ssl/context.hpp>
#include <functional>
#include <memory>
#include <vector>

#include "comm/http/http_server.h"
#include "kernels/base/error.h"

namespace lorikeet::comm {

// Thread: the server's. Handlers are called on it, never from within the call that was given them. One read and one
// write may be under way at a time.
class Transport {
 public:
  using Error = boost::system::error_code;
  using Done = std::function<void(Error)>;
  using Moved = std::function<void(Error, size_t bytes)>;

  static std::unique_ptr<Transport> plain(boost::asio::ip::tcp::socket socket);
  static std::unique_ptr<Transport> tls(boost::asio::ip::tcp::socket socket, boost::asio::ssl::context& context);
  virtual ~Transport() = default;

  virtual void handshake(Done done) = 0;  // once, before anything else
  virtual void read_some(boost::asio::mutable_buffer into, Moved moved) = 0;
  virtual void write_some(const std::vector<boost::asio::const_buffer>& from, Moved moved) = 0;
  virtual void end_writing(Done done) = 0;  // the client sees the end of what was written
  virtual void close() = 0;                 // what is under way ends with an error
};

// Errors name the file.
Result<std::unique_ptr<boost::asio::ssl::context>> tls_context(const TlsOptions& options);

}  // namespace lorikeet::comm
