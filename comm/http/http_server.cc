#include "comm/http/http_server.h"

#include <fmt/format.h>
#include <pthread.h>
#include <sys/resource.h>

#include <algorithm>
#include <atomic>
#include <boost/asio/executor_work_guard.hpp>
#include <boost/asio/io_context.hpp>
#include <boost/asio/ip/tcp.hpp>
#include <boost/asio/post.hpp>
#include <boost/asio/steady_timer.hpp>
#include <list>
#include <mutex>
#include <thread>
#include <unordered_map>
#include <utility>
#include <variant>
#include <vector>

#include "comm/http/http_connection.h"
#include "comm/http/transport.h"

namespace lorikeet::comm {
namespace {

namespace asio = boost::asio;
using asio::ip::tcp;
using Clock = std::chrono::steady_clock;
using Milliseconds = std::chrono::milliseconds;

constexpr Milliseconds kLongestTick{250};
constexpr Milliseconds kAcceptPause{100};  // after an accept that failed: out of descriptors, most often
constexpr Milliseconds kLastAnswers{500};  // for what was answered to leave when the server stops
constexpr size_t kReservedFiles = 64;      // descriptors that are not connections, beside 1 / 8 that adapters may take

struct Whole {
  HttpAnswer answer;
};
struct Begin {
  HttpAnswer head;
};
struct Piece {
  std::string bytes;
};
struct End {};
using Outgoing = std::variant<Whole, Begin, Piece, End>;

// The connections that the process may have files for.
size_t allowed_connections(size_t wanted) {
  rlimit limit{};
  if (getrlimit(RLIMIT_NOFILE, &limit) != 0) return wanted;
  const rlim_t needed = wanted + kReservedFiles;
  if (limit.rlim_cur < needed) {
    limit.rlim_cur = std::min<rlim_t>(needed, limit.rlim_max);
    setrlimit(RLIMIT_NOFILE, &limit);
    getrlimit(RLIMIT_NOFILE, &limit);
  }
  const size_t files = static_cast<size_t>(limit.rlim_cur) / 8 * 7;
  return std::max<size_t>(1, std::min(wanted, files > kReservedFiles ? files - kReservedFiles : 1));
}

class AsioServer final : public HttpServer, private ConnectionHost {
 public:
  AsioServer(HttpServerOptions options, HttpCallbacks callbacks)
      : options_(std::move(options)), callbacks_(std::move(callbacks)) {
    options_.max_connections = allowed_connections(options_.max_connections);
    tick_ = std::min({kLongestTick, options_.head_timeout / 4, options_.body_timeout / 4, options_.idle_timeout / 4,
                      options_.write_timeout / 4});
    tick_ = std::max(tick_, Milliseconds(1));
  }

  ~AsioServer() override {
    if (!thread_.joinable()) return;
    asio::post(io_, [this] { stop(); });
    thread_.join();
  }

  Result<void> listen() {
    if (options_.tls) {
      auto context = tls_context(*options_.tls);
      if (!context) return tl::unexpected(context.error());
      tls_ = *std::move(context);
    }
    boost::system::error_code error;
    tcp::resolver resolver(io_);
    const auto found = resolver.resolve(options_.host, std::to_string(options_.port), tcp::resolver::passive, error);
    if (error || found.empty()) return fail("cannot listen on {}: there is no such host", options_.host);
    const tcp::endpoint endpoint = found.begin()->endpoint();
    acceptor_.open(endpoint.protocol(), error);
    if (!error) acceptor_.set_option(tcp::acceptor::reuse_address(true), error);
    if (!error) acceptor_.bind(endpoint, error);
    if (!error) acceptor_.listen(asio::socket_base::max_listen_connections, error);
    if (!error) port_ = acceptor_.local_endpoint(error).port();
    if (error) {
      return fail("cannot listen on {} port {}: {}", options_.host, options_.port,
                  error == asio::error::address_in_use ? "the port is in use" : error.message());
    }
    accept();
    tick();
    thread_ = std::thread([this] { io_.run(); });
    pthread_setname_np(thread_.native_handle(), "http");  // for who looks at where time goes
    return {};
  }

  // ---- HttpServer

  uint16_t port() const override { return port_; }

  std::string url() const override {
    const bool v6 = options_.host.find(':') != std::string::npos;
    return fmt::format("{}://{}{}{}:{}", options_.tls ? "https" : "http", v6 ? "[" : "", options_.host, v6 ? "]" : "",
                       port_);
  }

  size_t connections() const override { return count_.load(std::memory_order_relaxed); }

  void answer(ExchangeId exchange, HttpAnswer answer) override { send(exchange, Whole{std::move(answer)}); }
  void begin(ExchangeId exchange, HttpAnswer head) override { send(exchange, Begin{std::move(head)}); }
  void write(ExchangeId exchange, std::string piece) override { send(exchange, Piece{std::move(piece)}); }
  void end(ExchangeId exchange) override { send(exchange, End{}); }

 private:
  void send(ExchangeId exchange, Outgoing what) {
    bool was_empty = false;
    {
      const std::lock_guard lock(mutex_);
      was_empty = outbox_.empty();
      outbox_.emplace_back(exchange, std::move(what));
    }
    if (was_empty) asio::post(io_, [this] { send_outbox(); });
  }

  void send_outbox() {
    std::vector<std::pair<ExchangeId, Outgoing>> messages;
    {
      const std::lock_guard lock(mutex_);
      messages.swap(outbox_);
    }
    for (auto& [id, what] : messages) {
      const auto found = exchanges_.find(id);
      if (found == exchanges_.end()) continue;
      const auto connection = found->second->shared_from_this();  // it may end here
      if (auto* whole = std::get_if<Whole>(&what)) {
        connection->answer(std::move(whole->answer));
      } else if (auto* begin = std::get_if<Begin>(&what)) {
        connection->begin(std::move(begin->head));
      } else if (const auto* piece = std::get_if<Piece>(&what)) {
        connection->write(piece->bytes);
      } else {
        connection->end();
      }
    }
  }

  // ---- the server's thread

  void accept() {
    acceptor_.async_accept([this](boost::system::error_code error, tcp::socket socket) {
      if (stopping_) return;
      if (error) {
        retry_.expires_after(kAcceptPause);
        retry_.async_wait([this](boost::system::error_code ended) {
          if (!ended && !stopping_) accept();
        });
        return;
      }
      accepted(std::move(socket));
      accept();
    });
  }

  void accepted(tcp::socket socket) {
    boost::system::error_code error;
    socket.set_option(tcp::no_delay(true), error);
    const tcp::endpoint peer = socket.remote_endpoint(error);
    if (error) return;  // it is gone
    auto transport = tls_ ? Transport::tls(std::move(socket), *tls_) : Transport::plain(std::move(socket));
    const auto connection =
        std::make_shared<HttpConnection>(static_cast<ConnectionHost&>(*this), std::move(transport),
                                         fmt::format("{}:{}", peer.address().to_string(), peer.port()));
    // The one that has rested longest gives way.
    if (connections_.size() >= options_.max_connections && !resting_.empty()) resting_.front()->close();
    const bool busy = connections_.size() >= options_.max_connections;
    // Those that are told so take no place for long; past as many again, they are not even told.
    if (connections_.size() >= 2 * options_.max_connections) return;
    connections_.emplace(connection.get(), connection);
    count_.store(connections_.size(), std::memory_order_relaxed);
    busy ? connection->refuse_busy() : connection->start();
  }

  void tick() {
    ticker_.expires_after(tick_);
    ticker_.async_wait([this](boost::system::error_code error) {
      if (error) return;
      const Clock::time_point now = Clock::now();
      for (const auto& connection : all()) connection->check_deadline(now);
      tick();
    });
  }

  std::vector<std::shared_ptr<HttpConnection>> all() const {
    std::vector<std::shared_ptr<HttpConnection>> list;
    list.reserve(connections_.size());
    for (const auto& entry : connections_) list.push_back(entry.second);
    return list;
  }

  void stop() {
    stopping_ = true;
    boost::system::error_code ignored;
    acceptor_.close(ignored);
    retry_.cancel();
    ticker_.cancel();
    send_outbox();
    for (const auto& connection : all()) connection->stop();
    if (connections_.empty()) return;
    ticker_.expires_after(kLastAnswers);
    ticker_.async_wait([this](boost::system::error_code error) {
      if (error) return;
      for (const auto& connection : all()) connection->close();
    });
  }

  // ---- ConnectionHost

  const HttpServerOptions& options() const override { return options_; }
  const HttpCallbacks& callbacks() const override { return callbacks_; }

  ExchangeId begin_exchange(HttpConnection& connection) override {
    exchanges_[++last_exchange_] = &connection;
    return last_exchange_;
  }
  void end_exchange(ExchangeId exchange) override { exchanges_.erase(exchange); }

  bool take_body_bytes(size_t bytes) override {
    if (body_bytes_ + bytes > options_.max_all_body_bytes) return false;
    body_bytes_ += bytes;
    return true;
  }
  void give_body_bytes(size_t bytes) override { body_bytes_ -= bytes; }

  void rests(HttpConnection& connection, bool resting) override {
    if (resting) {
      places_[&connection] = resting_.insert(resting_.end(), &connection);
    } else if (const auto place = places_.extract(&connection)) {
      resting_.erase(place.mapped());
    }
  }

  void closed(HttpConnection& connection) override {
    connections_.erase(&connection);
    count_.store(connections_.size(), std::memory_order_relaxed);
    if (stopping_ && connections_.empty()) ticker_.cancel();
  }

  HttpServerOptions options_;
  const HttpCallbacks callbacks_;
  std::unique_ptr<asio::ssl::context> tls_;
  uint16_t port_ = 0;
  Milliseconds tick_;
  std::atomic<size_t> count_{0};

  std::mutex mutex_;
  std::vector<std::pair<ExchangeId, Outgoing>> outbox_;

  // Of the server's thread.
  asio::io_context io_{1};
  std::unordered_map<HttpConnection*, std::shared_ptr<HttpConnection>> connections_;
  std::unordered_map<ExchangeId, HttpConnection*> exchanges_;
  std::list<HttpConnection*> resting_;  // longest first
  std::unordered_map<HttpConnection*, std::list<HttpConnection*>::iterator> places_;
  ExchangeId last_exchange_ = 0;
  size_t body_bytes_ = 0;
  bool stopping_ = false;

  tcp::acceptor acceptor_{io_};
  asio::steady_timer ticker_{io_}, retry_{io_};
  std::thread thread_;
};

}  // namespace

Result<std::unique_ptr<HttpServer>> HttpServer::start(const HttpServerOptions& options, HttpCallbacks callbacks) {
  auto server = std::make_unique<AsioServer>(options, std::move(callbacks));
  if (auto ok = server->listen(); !ok) return tl::unexpected(ok.error());
  return server;
}

}  // namespace lorikeet::comm
