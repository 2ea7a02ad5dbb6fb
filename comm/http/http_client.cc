#include "comm/http/http_client.h"

#include <array>
#include <boost/asio.hpp>
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

using Connection = std::unique_ptr<beast::tcp_stream>;

struct Pool {
  asio::io_context io;
  std::vector<tcp::endpoint> endpoints;
  std::vector<Connection> idle;
};

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
    stream_ = std::make_unique<beast::tcp_stream>(pool_.io);
    stream_->expires_after(kConnectPatience);
    stream_->async_connect(pool_.endpoints, [self = shared_from_this()](beast::error_code error, const tcp::endpoint&) {
      if (error) return self->end(0, "it cannot be reached: " + error.message());
      self->stream_->socket().set_option(tcp::no_delay(true), error);
      self->write();
    });
  }

  // Nothing is said of it any more.
  void drop() {
    ended_ = true;
    beast::error_code ignored;
    if (stream_) stream_->socket().close(ignored);
  }

 private:
  void write() {
    stream_->expires_never();
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
  Connection stream_;
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
    for (const auto& entry : resolver.resolve(host, port, error)) pool_.endpoints.push_back(entry.endpoint());
    if (error) return fail("{}: {}", authority_, error.message());
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

Result<std::unique_ptr<HttpClient>> HttpClient::make(const std::string& host, const std::string& port) {
  const bool v6 = host.find(':') != std::string::npos;
  auto client = std::make_unique<BeastClient>((v6 ? "[" + host + "]" : host) + ":" + port);
  if (auto ok = client->look_up(host, port); !ok) return tl::unexpected(ok.error());
  return client;
}

}  // namespace lorikeet::comm
