#include "comm/http/http_client.h"

#include <array>
#include <boost/asio.hpp>
#include <boost/asio/ssl.hpp>
#include <boost/beast/core.hpp>
#include <boost/beast/http.hpp>
#include <limits>
#include <map>
#include <optional>
#include <utility>
#include <vector>

namespace lorikeet::comm {
namespace {

namespace asio = boost::asio;
namespace beast = boost::beast;
namespace http = beast::http;
using tcp = asio::ip::tcp;

constexpr std::chrono::seconds kConnectPatience{2};
constexpr size_t kMaxErrorBytes = 1 << 20;

// A stream as Beast's algorithms take it, plain or through TLS.
class Connection {
 public:
  using executor_type = beast::tcp_stream::executor_type;

  Connection(asio::io_context& io, asio::ssl::context* tls) {
    tls ? void(tls_.emplace(io, *tls)) : void(plain_.emplace(io));
  }
  beast::tcp_stream& tcp() { return tls_ ? tls_->next_layer() : *plain_; }
  executor_type get_executor() { return tcp().get_executor(); }

  // done(error). What is in the clear needs none.
  template <class Done>
  void handshake(const std::string& host, Done done) {
    if (!tls_) return done(beast::error_code());
    SSL* const ssl = tls_->native_handle();
    if (X509_VERIFY_PARAM_set1_ip_asc(SSL_get0_param(ssl), host.c_str()) != 1) {  // it is no address
      SSL_set_tlsext_host_name(ssl, host.c_str());
      SSL_set1_host(ssl, host.c_str());
    }
    tls_->async_handshake(asio::ssl::stream_base::client, std::move(done));
  }
  bool is_believed() { return !tls_ || SSL_get_verify_result(tls_->native_handle()) == X509_V_OK; }
  std::string why_not_believed() { return X509_verify_cert_error_string(SSL_get_verify_result(tls_->native_handle())); }

  template <class Buffers, class Handler>
  auto async_read_some(const Buffers& buffers, Handler&& handler) {
    return asio::async_initiate<Handler, void(beast::error_code, size_t)>(
        [this](auto&& then, const Buffers& into) {
          tls_ ? tls_->async_read_some(into, std::forward<decltype(then)>(then))
               : plain_->async_read_some(into, std::forward<decltype(then)>(then));
        },
        handler, buffers);
  }
  template <class Buffers, class Handler>
  auto async_write_some(const Buffers& buffers, Handler&& handler) {
    return asio::async_initiate<Handler, void(beast::error_code, size_t)>(
        [this](auto&& then, const Buffers& from) {
          tls_ ? tls_->async_write_some(from, std::forward<decltype(then)>(then))
               : plain_->async_write_some(from, std::forward<decltype(then)>(then));
        },
        handler, buffers);
  }

 private:
  std::optional<beast::tcp_stream> plain_;
  std::optional<asio::ssl::stream<beast::tcp_stream>> tls_;
};

struct Pool {
  asio::io_context io;
  std::string host;
  std::unique_ptr<asio::ssl::context> tls;  // null: in the clear
  bool insecure = false;
  std::vector<tcp::endpoint> endpoints;
  std::vector<std::unique_ptr<Connection>> idle;
};

Result<std::unique_ptr<asio::ssl::context>> make_context(const ClientTls& options) {
  using asio::ssl::context;
  auto made = std::make_unique<context>(context::tls_client);
  beast::error_code error;
  made->set_options(context::default_workarounds | context::no_tlsv1 | context::no_tlsv1_1, error);
  if (!options.certificate_file.empty()) {
    made->use_certificate_chain_file(options.certificate_file, error);
    if (error) return fail("the certificate {} cannot be used: {}", options.certificate_file, error.message());
    const std::string& key = options.key_file.empty() ? options.certificate_file : options.key_file;
    made->use_private_key_file(key, context::pem, error);
    if (error) return fail("the key {} cannot be used: {}", key, error.message());
  }
  if (options.insecure) return made;
  if (options.ca_file.empty()) {
    made->set_default_verify_paths(error);
  } else {
    made->load_verify_file(options.ca_file, error);
  }
  if (error) return fail("the certificates {} cannot be used: {}", options.ca_file, error.message());
  made->set_verify_mode(asio::ssl::verify_peer, error);
  return made;
}

// One request and its answer, on a connection that is given back when both have gone well.
class Exchange : public std::enable_shared_from_this<Exchange> {
 public:
  Exchange(Pool& pool, http::request<http::string_body> request, HttpClient::Callbacks callbacks)
      : pool_(pool), request_(std::move(request)), callbacks_(std::move(callbacks)) {}

  void start() {
    if (!pool_.idle.empty()) {
      stream_ = std::move(pool_.idle.back());
      pool_.idle.pop_back();
      reused_ = true;
      return write();
    }
    reused_ = false;
    stream_ = std::make_unique<Connection>(pool_.io, pool_.tls.get());
    beast::tcp_stream& tcp_stream = stream_->tcp();
    tcp_stream.expires_after(kConnectPatience);
    tcp_stream.async_connect(pool_.endpoints,
                             [self = shared_from_this()](beast::error_code error, const tcp::endpoint&) {
                               if (error) return self->end(0, "it cannot be reached: " + error.message());
                               self->stream_->tcp().socket().set_option(tcp::no_delay(true), error);
                               self->handshake();
                             });
  }

  // Nothing is said of it any more.
  void drop() {
    ended_ = true;
    beast::error_code ignored;
    if (stream_) stream_->tcp().socket().close(ignored);
  }

 private:
  void handshake() {
    stream_->tcp().expires_after(kConnectPatience);
    stream_->handshake(pool_.host, [self = shared_from_this()](beast::error_code error) {
      if (!error) return self->write();
      if (self->pool_.insecure || self->stream_->is_believed()) {
        return self->end(0, "it does not speak TLS with us: " + error.message());
      }
      self->end(
          0, "its certificate is not believed: " + self->stream_->why_not_believed() + "; --cacert FILE names others");
    });
  }

  void write() {
    stream_->tcp().expires_never();
    http::async_write(*stream_, request_, [self = shared_from_this()](beast::error_code error, size_t) {
      if (error) return self->lost(error);
      self->read_head();
    });
  }

  void read_head() {
    parser_.emplace();
    parser_->body_limit(std::numeric_limits<uint64_t>::max());  // none at all would refuse every length
    http::async_read_header(*stream_, buffer_, *parser_, [self = shared_from_this()](beast::error_code error, size_t) {
      if (error) return self->lost(error);
      self->reused_ = false;  // the server has seen the request
      self->read_body();
    });
  }

  void read_body() {
    if (parser_->is_done()) return finish();
    parser_->get().body().data = chunk_.data();
    parser_->get().body().size = chunk_.size();
    http::async_read_some(*stream_, buffer_, *parser_, [self = shared_from_this()](beast::error_code error, size_t) {
      if (self->ended_) return;
      if (error == http::error::need_buffer) error = {};
      if (error) return self->end(0, "the connection was lost: " + error.message());
      const std::string_view piece(self->chunk_.data(), self->chunk_.size() - self->parser_->get().body().size);
      if (self->status() == 200) {
        self->callbacks_.on_body(piece);
      } else if (self->error_.size() < kMaxErrorBytes) {
        self->error_ += piece;
      }
      self->read_body();
    });
  }

  int status() const { return static_cast<int>(parser_->get().result_int()); }

  void finish() {
    if (parser_->keep_alive() && !ended_) pool_.idle.push_back(std::move(stream_));
    end(status(), error_);
  }

  // A server may have ended an idle connection just when it was taken: then another one is tried.
  void lost(beast::error_code error) {
    if (ended_) return;
    if (reused_) return start();
    end(0, "the connection was lost: " + error.message());
  }

  void end(int status, const std::string& text) {
    if (!std::exchange(ended_, true)) callbacks_.on_end(status, text);
  }

  Pool& pool_;
  http::request<http::string_body> request_;
  HttpClient::Callbacks callbacks_;
  std::unique_ptr<Connection> stream_;
  bool reused_ = false, ended_ = false;
  beast::flat_buffer buffer_;
  std::optional<http::response_parser<http::buffer_body>> parser_;
  std::array<char, 16384> chunk_{};
  std::string error_;
};

class BeastClient final : public HttpClient {
 public:
  explicit BeastClient(std::string authority) : authority_(std::move(authority)) {}

  Result<void> look_up(const std::string& host, const std::string& port) {
    beast::error_code error;
    tcp::resolver resolver(pool_.io);
    pool_.host = host;
    for (const auto& entry : resolver.resolve(host, port, error)) pool_.endpoints.push_back(entry.endpoint());
    if (error) return fail("{}: {}", authority_, error.message());
    return {};
  }

  Result<void> use(const ClientTls& tls) {
    auto context = make_context(tls);
    if (!context) return tl::unexpected(context.error());
    pool_.tls = *std::move(context);
    pool_.insecure = tls.insecure;
    return {};
  }

  ExchangeId start(const HttpRequest& request, Callbacks callbacks) override {
    http::request<http::string_body> message(http::string_to_verb(request.method), request.target, 11);
    message.set(http::field::host, authority_);
    for (const auto& [name, value] : request.headers) message.set(name, value);
    message.body() = request.body;
    message.prepare_payload();
    const ExchangeId id = next_id_++;
    auto on_end = [this, id, told = std::move(callbacks.on_end)](int status, const std::string& text) {
      running_.erase(id);
      told(status, text);
    };
    auto exchange = std::make_shared<Exchange>(pool_, std::move(message),
                                               Callbacks{std::move(callbacks.on_body), std::move(on_end)});
    running_.emplace(id, exchange);
    exchange->start();
    return id;
  }

  void drop(ExchangeId exchange) override {
    const auto found = running_.extract(exchange);
    if (found) found.mapped()->drop();
  }

  void run_once(Clock::time_point deadline) override {
    pool_.io.restart();
    if (pool_.io.poll() == 0 && !running_.empty()) pool_.io.run_one_until(deadline);
  }

 private:
  const std::string authority_;
  Pool pool_;
  std::map<ExchangeId, std::shared_ptr<Exchange>> running_;
  ExchangeId next_id_ = 1;
};

}  // namespace

Result<std::unique_ptr<HttpClient>> HttpClient::make(const std::string& host, const std::string& port,
                                                     const std::optional<ClientTls>& tls) {
  const bool v6 = host.find(':') != std::string::npos;
  auto client = std::make_unique<BeastClient>((v6 ? "[" + host + "]" : host) + ":" + port);
  if (auto ok = client->look_up(host, port); !ok) return tl::unexpected(ok.error());
  if (auto ok = tls ? client->use(*tls) : Result<void>(); !ok) return tl::unexpected(ok.error());
  return client;
}

}  // namespace lorikeet::comm
