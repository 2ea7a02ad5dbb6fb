#include "comm/client/zmq_server.h"

#include <glog/logging.h>
#include <sys/eventfd.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <unistd.h>

#include <algorithm>
#include <atomic>
#include <chrono>
#include <cstring>
#include <mutex>
#include <optional>
#include <random>
#include <thread>
#include <unordered_map>
#include <utility>
#include <vector>
#include <zmq.hpp>

#include "comm/client/body_decoder.h"
#include "comm/client/connection_limit.h"
#include "comm/client/frames.h"
#include "comm/client/zap_handler.h"

namespace lorikeet::comm {
namespace {

using Clock = std::chrono::steady_clock;
using Milliseconds = std::chrono::milliseconds;

constexpr int kBacklog = 2048;       // ZeroMQ's 100 lets hundreds of clients that connect at once run into SYN retries
constexpr int kReceiveBatch = 256;   // messages read before the outbox is looked at again
constexpr int kInboundMessages = 4;  // of one client that ZeroMQ holds ready for us; the rest waits in the network
constexpr size_t kInlineBytes = 16 << 10;    // a body up to here is decoded in less time than a message takes
constexpr size_t kReservedDescriptors = 16;  // not for connections: ranks, adapters
constexpr int kLingerMs = 500;               // how long the last answers may take to leave when the server stops
constexpr int64_t kFrameOverhead = 256;      // what a message costs ZeroMQ besides its body
constexpr size_t kKeptFrames = 8;            // of a message with too many of them

// Bytes of answers that ZeroMQ holds for one client. ZeroMQ's threads subtract.
using PendingBytes = std::atomic<int64_t>;

// The body of an answer, owned by ZeroMQ until it is written to the network or thrown away.
struct Body {
  Body(std::string body, std::shared_ptr<PendingBytes> counted) : bytes(std::move(body)), pending(std::move(counted)) {}

  std::string bytes;
  std::shared_ptr<PendingBytes> pending;
  // ZeroMQ's threads hand it on with an order of memory that the thread sanitizer cannot see; this it sees.
  std::atomic<bool> handed_over{false};

  int64_t cost() const { return static_cast<int64_t>(bytes.size()) + kFrameOverhead; }

  static zmq::message_t hand_over(std::unique_ptr<Body> body) {
    body->pending->fetch_add(body->cost(), std::memory_order_acq_rel);
    void* data = body->bytes.data();
    const size_t size = body->bytes.size();
    body->handed_over.store(true, std::memory_order_release);
    return zmq::message_t(data, size, &Body::release, body.release());
  }

  static void release(void*, void* hint) {
    const std::unique_ptr<Body> body(static_cast<Body*>(hint));
    CHECK(body->handed_over.load(std::memory_order_acquire));
    body->pending->fetch_sub(body->cost(), std::memory_order_acq_rel);
  }
};

struct Client {
  ClientId id = 0;
  std::string routing_id;
  std::string session;
  Encoding encoding = Encoding::json;  // of its last message
  std::string user;                    // that has connected; empty: nobody was asked
  bool delimited = false;              // its last message had an empty frame in front: a REQ socket's, say
  bool greeted = false;
  Clock::time_point heard, spoke;
  std::shared_ptr<PendingBytes> pending;
  size_t decoding = 0;  // messages with the decoder
};

constexpr std::string_view kIpc = "ipc://";

// ZeroMQ unlinks an ipc socket before it binds, be it another server's: ask first.
bool ipc_is_served(const std::string& address) {
  sockaddr_un name{};
  if (address.rfind(kIpc, 0) != 0 || address.size() - kIpc.size() >= sizeof(name.sun_path)) return false;
  name.sun_family = AF_UNIX;
  std::memcpy(name.sun_path, address.data() + kIpc.size(), address.size() - kIpc.size());
  const int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
  if (fd < 0) return false;
  // A full backlog is a server too.
  const bool served = connect(fd, reinterpret_cast<sockaddr*>(&name), sizeof(name)) == 0 || errno == EAGAIN;
  close(fd);
  return served;
}

// ZeroMQ takes port 99999 for 34463.
bool has_impossible_port(const std::string& address) {
  const size_t colon = address.rfind(':');
  if (address.rfind("tcp://", 0) != 0 || colon == std::string::npos) return false;
  const std::string port = address.substr(colon + 1);
  return port.size() > 5 ||
         (!port.empty() && std::all_of(port.begin(), port.end(), ::isdigit) && std::stoi(port) > 65535);
}

class RouterServer final : public ZmqServer {
 public:
  RouterServer(ZmqServerOptions options, ZmqServerCallbacks callbacks)
      : options_(std::move(options)),
        callbacks_(std::move(callbacks)),
        heartbeat_(std::max(options_.heartbeat_ms, 1)),
        router_(context_, zmq::socket_type::router),
        wake_fd_(eventfd(0, EFD_NONBLOCK | EFD_CLOEXEC)),
        server_tag_(fmt::format("{:08x}{:08x}", std::random_device{}(), std::random_device{}())) {
    PCHECK(wake_fd_ >= 0) << "eventfd";
    decoder_.emplace(static_cast<size_t>(options_.max_message_bytes), [this] { wake(); });
  }

  ~RouterServer() override {
    if (thread_.joinable()) {
      {
        const std::lock_guard lock(mutex_);
        stopping_ = true;
      }
      wake();
      thread_.join();
    }
    decoder_.reset();  // it wakes
    connections_.reset();
    zap_.reset();
    router_.close();
    context_.close();  // ZeroMQ's threads release the last bodies here
    close(wake_fd_);
  }

  Result<void> listen() {
    if (has_impossible_port(options_.address)) {
      return fail("cannot listen on {}: there is no such port", options_.address);
    }
    if (ipc_is_served(options_.address)) {
      return fail("cannot listen on {}: the address is in use", options_.address);
    }
    try {
      router_.set(zmq::sockopt::linger, kLingerMs);
      router_.set(zmq::sockopt::router_mandatory, 1);  // an answer to a client that is gone is an error, not silence
      router_.set(zmq::sockopt::backlog, kBacklog);
      router_.set(zmq::sockopt::sndhwm, 0);  // bounded by bytes (PendingBytes) instead of by messages
      router_.set(zmq::sockopt::rcvhwm, kInboundMessages);
      // A frame up to twice the limit is read and answered with a sentence, a larger one ends its connection unread.
      router_.set(zmq::sockopt::maxmsgsize, static_cast<int64_t>(kMaxFrameBodies) * options_.max_message_bytes);
      // A peer whose kernel takes nothing for so long is cut off, which frees what waits for it.
      router_.set(zmq::sockopt::tcp_maxrt, static_cast<int>(kSilentHeartbeats * heartbeat_.count()));
      router_.set(zmq::sockopt::handshake_ivl, options_.handshake_ms);
      secure();
      const size_t most = options_.max_connections;
      connections_.emplace(context_, router_, most > 0 ? most : descriptors_for_connections(kReservedDescriptors),
                           options_.max_unspoken);
      router_.bind(options_.address);
      address_ = router_.get(zmq::sockopt::last_endpoint);
    } catch (const zmq::error_t& error) {
      return fail("cannot listen on {}: {}", options_.address,
                  error.num() == EADDRINUSE ? "the address is in use" : error.what());
    }
    thread_ = std::thread([this] { loop(); });
    return {};
  }

  std::string address() const override { return address_; }

  void send(ClientId client, ServerMessage message) override {
    bool was_empty = false;
    {
      const std::lock_guard lock(mutex_);
      was_empty = outbox_.empty();
      outbox_.emplace_back(client, std::move(message));
    }
    if (was_empty) wake();
  }

 private:
  void secure() {
    if (options_.mechanism == ZmqMechanism::none) return;
    zap_.emplace(context_, options_.users);
    router_.set(zmq::sockopt::zap_domain, "lorikeet");
    if (options_.mechanism == ZmqMechanism::plain) {
      router_.set(zmq::sockopt::plain_server, 1);
    } else {
      router_.set(zmq::sockopt::curve_server, 1);
      router_.set(zmq::sockopt::curve_secretkey, options_.secret_key);
    }
  }

  void wake() {
    const uint64_t one = 1;
    PCHECK(write(wake_fd_, &one, sizeof(one)) == sizeof(one)) << "eventfd";
  }

  void loop() {
    const Milliseconds tick = std::max(heartbeat_ / 4, Milliseconds(1));
    Clock::time_point next_tick = Clock::now() + tick;
    std::vector<zmq::pollitem_t> items = {{router_.handle(), 0, ZMQ_POLLIN, 0},
                                          {nullptr, wake_fd_, ZMQ_POLLIN, 0},
                                          {connections_->handle(), 0, ZMQ_POLLIN, 0}};
    if (zap_) items.push_back({zap_->handle(), 0, ZMQ_POLLIN, 0});
    while (true) {
      items[0].events = is_full() ? 0 : ZMQ_POLLIN;
      const auto wait = std::chrono::ceil<Milliseconds>(next_tick - Clock::now());
      try {
        zmq::poll(items, std::max(wait, Milliseconds(0)));
      } catch (const zmq::error_t& error) {
        if (error.num() != EINTR) throw;
        continue;
      }
      if ((items[1].revents & ZMQ_POLLIN) != 0) {
        uint64_t count = 0;
        (void)!read(wake_fd_, &count, sizeof(count));
      }
      if ((items[2].revents & ZMQ_POLLIN) != 0) connections_->act();
      if (zap_ && (items[3].revents & ZMQ_POLLIN) != 0) zap_->act();
      take_decoded();
      const bool stopping = send_outbox();
      if (stopping) return;
      if ((items[0].revents & ZMQ_POLLIN) != 0) receive_some();
      if (const Clock::time_point now = Clock::now(); now >= next_tick) {
        beat(now);
        next_tick = now + tick;
      }
    }
  }

  // True when the server is to stop; what was sent before has then been handed to ZeroMQ.
  bool send_outbox() {
    std::vector<std::pair<ClientId, ServerMessage>> messages;
    bool stopping = false;
    {
      const std::lock_guard lock(mutex_);
      messages.swap(outbox_);
      stopping = stopping_;
    }
    for (auto& [id, message] : messages) {
      const auto found = by_id_.find(id);
      if (found == by_id_.end()) continue;
      std::visit([&](auto& alternative) { transmit(found->second, std::move(alternative)); }, message);
    }
    return stopping;
  }

  // May drop the client. delimited: with an empty frame in front.
  void transmit(const std::string& routing_id, ServerFrame message, bool delimited = false) {
    Client& client = by_routing_id_.at(routing_id);
    Frames frames = encode_frames(client.encoding, message);
    auto body = std::make_unique<Body>(std::move(frames.body), client.pending);
    if (client.pending->load(std::memory_order_acquire) + body->cost() > options_.max_pending_bytes) {
      drop(routing_id, "it does not read its answers");
      return;
    }
    try {
      router_.send(zmq::buffer(routing_id), zmq::send_flags::sndmore);
      if (delimited) router_.send(zmq::message_t(), zmq::send_flags::sndmore);
      for (std::string_view frame : {frames.version, frames.encoding, frames.kind}) {
        router_.send(zmq::buffer(frame), zmq::send_flags::sndmore);
      }
      router_.send(Body::hand_over(std::move(body)), zmq::send_flags::none);
      client.spoke = Clock::now();
    } catch (const zmq::error_t& error) {
      if (error.num() != EHOSTUNREACH) throw;
      drop(routing_id, "it has disconnected");
    }
  }

  void drop(const std::string& routing_id, const char* why) {
    const auto found = by_routing_id_.find(routing_id);
    const Client client = std::move(found->second);
    by_routing_id_.erase(found);
    by_id_.erase(client.id);
    if (client.decoding > 0) decoder_->forget(client.id);
    // Answers that are still on their way to it count against it when it comes back.
    if (client.pending->load(std::memory_order_acquire) > 0) unread_[client.routing_id] = client.pending;
    VLOG(1) << "client " << client.id << " is dropped: " << why;
    if (callbacks_.on_gone) callbacks_.on_gone(client.id);
  }

  // Then nobody is heard for a while; nobody is silent, either.
  bool is_full() {
    const bool full = decoder_->waiting_bytes() >= kMaxUndecodedBytes;
    if (full) listened_ = Clock::now();
    return full;
  }

  void receive_some() {
    for (int i = 0; i < kReceiveBatch && !is_full(); ++i) {
      ClientFrames frames;
      bool more = true;
      while (more) {
        zmq::message_t frame;
        if (!router_.recv(frame, zmq::recv_flags::dontwait)) return;  // only before the first frame
        more = frame.more();
        if (frames.size() < kKeptFrames) frames.push_back(std::move(frame));
      }
      const std::string routing_id = frames[0].to_string();
      const char* user = zap_ && frames.size() > 1 ? zmq_msg_gets(frames[1].handle(), "User-Id") : nullptr;
      const std::string named = user == nullptr ? "" : user;
      if (frames.size() > 1) connections_->spoke(zmq_msg_get(frames[1].handle(), ZMQ_SRCFD));
      frames.erase(frames.begin());
      handle(routing_id, named, std::move(frames));
    }
  }

  void handle(const std::string& routing_id, const std::string& user, ClientFrames frames) {
    std::vector<std::string_view> parts;
    for (const zmq::message_t& frame : frames) parts.push_back(frame.to_string_view());
    // A REQ socket puts an empty frame in front, sees no answer without one, and gives up its connection over one.
    const bool delimited = parts.size() > 1 && parts[0].empty();
    const ClientId id = heard_from(routing_id, user, encoding_of(parts), delimited);
    if (id == 0) return;
    Client& client = by_routing_id_.at(routing_id);
    const bool is_heartbeat = parts.size() == kFrameCount && parts.back().empty();
    if (bytes_of(frames) > kInlineBytes || (client.decoding > 0 && !is_heartbeat)) {
      ++client.decoding;
      decoder_->add(id, std::move(frames));
    } else {
      handle(id, routing_id, decode_client_frames(parts, static_cast<size_t>(options_.max_message_bytes)));
    }
  }

  void take_decoded() {
    for (BodyDecoder::Item& item : decoder_->take()) {
      const auto found = by_id_.find(item.client);
      if (found == by_id_.end()) {
        decoder_->discard(std::move(item));
        continue;
      }
      const std::string routing_id = found->second;
      --by_routing_id_.at(routing_id).decoding;
      handle(item.client, routing_id, std::move(item.message));
    }
  }

  void handle(ClientId id, const std::string& routing_id, tl::expected<Decoded<ClientFrame>, Malformed> decoded) {
    if (!decoded) {
      transmit(routing_id, Failure{decoded.error().id, "malformed", decoded.error().message},
               by_routing_id_.at(routing_id).delimited);
      return;
    }
    std::visit(
        [&](auto& message) {
          using Message = std::remove_cvref_t<decltype(message)>;
          if constexpr (!std::is_same_v<Message, ClientHeartbeat>) {
            if (callbacks_.on_message) callbacks_.on_message(id, ClientMessage(std::move(message)));
          }
        },
        decoded->message);
  }

  // Notes that a client lives, and greets a new one. 0 when the greeting already found it gone.
  ClientId heard_from(const std::string& routing_id, const std::string& user, std::optional<Encoding> encoding,
                      bool delimited) {
    const Clock::time_point now = Clock::now();
    auto found = by_routing_id_.find(routing_id);
    if (found != by_routing_id_.end() && found->second.user != user) {
      drop(routing_id, "another user has taken its routing id");
      found = by_routing_id_.end();
    }
    const bool is_new = found == by_routing_id_.end();
    if (is_new) {
      Client client;
      client.id = ++last_client_;
      client.routing_id = routing_id;
      client.user = user;
      client.session = fmt::format("{}-{}", server_tag_, client.id);
      const auto unread = unread_.find(routing_id);
      client.pending = unread == unread_.end() ? std::make_shared<PendingBytes>(0) : unread->second;
      by_id_[client.id] = routing_id;
      found = by_routing_id_.emplace(routing_id, std::move(client)).first;
      if (zap_ && callbacks_.on_user) callbacks_.on_user(found->second.id, user);
    }
    Client& client = found->second;
    client.heard = now;
    if (encoding) client.encoding = *encoding;
    const ClientId id = client.id;
    client.delimited = delimited;
    if (!delimited && !std::exchange(client.greeted, true)) {
      transmit(routing_id, Heartbeat{client.session, static_cast<int32_t>(heartbeat_.count())});
    }
    return by_id_.count(id) > 0 ? id : 0;
  }

  // Drops the silent and speaks to those that heard nothing for a while; that also finds the disconnected.
  void beat(Clock::time_point now) {
    std::vector<std::string> silent, waiting;
    for (const auto& [routing_id, client] : by_routing_id_) {
      if (now - std::max(client.heard, listened_) >= kSilentHeartbeats * heartbeat_) {
        silent.push_back(routing_id);
      } else if (!client.delimited && now - client.spoke >= heartbeat_) {
        waiting.push_back(routing_id);
      }
    }
    for (const std::string& routing_id : silent) drop(routing_id, "it is silent");
    for (const std::string& routing_id : waiting) {
      const Client& client = by_routing_id_.at(routing_id);
      transmit(routing_id, Heartbeat{client.session, static_cast<int32_t>(heartbeat_.count())});
    }
    std::erase_if(unread_, [](const auto& entry) { return entry.second->load(std::memory_order_acquire) == 0; });
  }

  const ZmqServerOptions options_;
  const ZmqServerCallbacks callbacks_;
  const Milliseconds heartbeat_;
  zmq::context_t context_{1};
  zmq::socket_t router_;  // of the server's thread once it runs
  const int wake_fd_;
  const std::string server_tag_;  // tells this server's sessions from those of any other
  std::string address_;

  std::mutex mutex_;
  std::vector<std::pair<ClientId, ServerMessage>> outbox_;
  bool stopping_ = false;

  // Of the server's thread.
  std::unordered_map<std::string, Client> by_routing_id_;
  std::unordered_map<ClientId, std::string> by_id_;
  std::unordered_map<std::string, std::shared_ptr<PendingBytes>> unread_;  // of dropped clients
  ClientId last_client_ = 0;
  std::optional<ConnectionLimit> connections_;
  std::optional<ZapHandler> zap_;
  Clock::time_point listened_;  // when it last did not, since the decoder had enough to do

  std::optional<BodyDecoder> decoder_;

  std::thread thread_;
};

}  // namespace

void remove_dead_socket(const std::string& address) {
  if (address.rfind(kIpc, 0) != 0 || ipc_is_served(address)) return;
  const std::string path = address.substr(kIpc.size());
  struct stat about = {};
  if (lstat(path.c_str(), &about) == 0 && S_ISSOCK(about.st_mode)) unlink(path.c_str());
}

Result<std::unique_ptr<ZmqServer>> ZmqServer::start(const ZmqServerOptions& options, ZmqServerCallbacks callbacks) {
  auto server = std::make_unique<RouterServer>(options, std::move(callbacks));
  if (const Result<void> listening = server->listen(); !listening) return tl::unexpected(listening.error());
  return server;
}

}  // namespace lorikeet::comm
