#include "comm/http/transport.h"

#include <boost/asio/post.hpp>
#include <boost/asio/ssl/stream.hpp>
#include <utility>

namespace lorikeet::comm {
namespace {

namespace asio = boost::asio;
using asio::ip::tcp;

class PlainTransport final : public Transport {
 public:
  explicit PlainTransport(tcp::socket socket) : socket_(std::move(socket)) {}

  void handshake(Done done) override {
    asio::post(socket_.get_executor(), [done = std::move(done)] { done({}); });
  }
  void read_some(asio::mutable_buffer into, Moved moved) override { socket_.async_read_some(into, std::move(moved)); }
  void write_some(const std::vector<asio::const_buffer>& from, Moved moved) override {
    socket_.async_write_some(from, std::move(moved));
  }
  void end_writing(Done done) override {
    Error error;
    socket_.shutdown(tcp::socket::shutdown_send, error);
    asio::post(socket_.get_executor(), [done = std::move(done), error] { done(error); });
  }
  void close() override {
    Error ignored;
    socket_.close(ignored);
  }

 private:
  tcp::socket socket_;
};

class TlsTransport final : public Transport {
 public:
  TlsTransport(tcp::socket socket, asio::ssl::context& context) : stream_(std::move(socket), context) {}

  void handshake(Done done) override { stream_.async_handshake(asio::ssl::stream_base::server, std::move(done)); }
  void read_some(asio::mutable_buffer into, Moved moved) override { stream_.async_read_some(into, std::move(moved)); }
  void write_some(const std::vector<asio::const_buffer>& from, Moved moved) override {
    stream_.async_write_some(from, std::move(moved));
  }
  // Says close_notify at once; that the client's own is waited for costs nothing, since a connection has its deadline.
  void end_writing(Done done) override { stream_.async_shutdown(std::move(done)); }
  void close() override {
    Error ignored;
    stream_.next_layer().close(ignored);
  }

 private:
  asio::ssl::stream<tcp::socket> stream_;
};

}  // namespace

std::unique_ptr<Transport> Transport::plain(tcp::socket socket) {
  return std::make_unique<PlainTransport>(std::move(socket));
}

std::unique_ptr<Transport> Transport::tls(tcp::socket socket, asio::ssl::context& context) {
  return std::make_unique<TlsTransport>(std::move(socket), context);
}

Result<std::unique_ptr<asio::ssl::context>> tls_context(const TlsOptions& options) {
  using asio::ssl::context;
  auto made = std::make_unique<context>(context::tls_server);
  Transport::Error error;
  made->set_options(context::default_workarounds | context::no_tlsv1 | context::no_tlsv1_1 | context::single_dh_use,
                    error);
  made->use_certificate_chain_file(options.certificate_file, error);
  if (error) return fail("the certificate {} cannot be used: {}", options.certificate_file, error.message());
  made->use_private_key_file(options.key_file, context::pem, error);
  if (error) return fail("the key {} cannot be used: {}", options.key_file, error.message());
  if (SSL_CTX_check_private_key(made->native_handle()) != 1) {
    return fail("the key {} does not belong to the certificate {}", options.key_file, options.certificate_file);
  }
  if (options.clients == TlsOptions::ClientCertificates::none) return made;
  if (options.ca_file.empty()) {
    made->set_default_verify_paths(error);
  } else {
    made->load_verify_file(options.ca_file, error);
  }
  if (error) return fail("the certificates {} cannot be used: {}", options.ca_file, error.message());
  const bool required = options.clients == TlsOptions::ClientCertificates::required;
  made->set_verify_mode(asio::ssl::verify_peer | (required ? asio::ssl::verify_fail_if_no_peer_cert : 0), error);
  return made;
}

}  // namespace lorikeet::comm
