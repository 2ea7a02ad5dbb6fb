#include "actors/wire/caf_connection.h"

#include <fcntl.h>
#include <fmt/format.h>
#include <sys/socket.h>

#include <caf/io/basp_broker.hpp>
#include <caf/io/network/default_multiplexer.hpp>
#include <caf/io/network/stream_impl.hpp>
#include <cerrno>
#include <string>
#include <utility>
#include <vector>

#include "actors/wire/frame_guard.h"

namespace lorikeet::actors {
namespace {

using caf::io::network::default_multiplexer;
using caf::io::network::native_socket;
using caf::io::network::rw_state;

// CAF numbers what is published by ports; here it is a name that both ends know.
constexpr uint16_t kPublished = 1;

default_multiplexer& multiplexer(caf::actor_system& system) {
  return static_cast<default_multiplexer&>(system.middleman().backend());
}

// How CAF's stream reads and writes: its own policy with the guard in front.
class GuardedSocket {
 public:
  // 0 bytes and success: nothing to be had now.
  rw_state read_some(size_t& count, native_socket socket, void* data, size_t size) {
    count = 0;
    const ssize_t got = recv(socket, data, size, 0);
    if (got < 0 && (errno == EAGAIN || errno == EINTR)) return rw_state::success;
    if (got <= 0) return rw_state::failure;
    count = static_cast<size_t>(got);
    return guard_.take({static_cast<const uint8_t*>(data), count}) ? rw_state::success : rw_state::failure;
  }

  rw_state write_some(size_t& count, native_socket socket, const void* data, size_t size) {
    count = 0;
    const ssize_t sent = send(socket, data, size, MSG_NOSIGNAL);
    if (sent < 0) return errno == EAGAIN || errno == EINTR ? rw_state::success : rw_state::failure;
    count = static_cast<size_t>(sent);
    return rw_state::success;
  }

  bool must_read_more(native_socket, size_t) { return false; }

 private:
  FrameGuard guard_;
};

// A connection that CAF's broker treats as its own. Everything happens on CAF's I/O thread.
class ConnectionScribe final : public caf::io::scribe {
 public:
  // peers: where the node at the other end is noted as `rank`; none: not needed.
  ConnectionScribe(default_multiplexer& multiplexer, native_socket socket, int32_t rank,
                   std::shared_ptr<PeerRanks> peers)
      : scribe(caf::io::network::conn_hdl_from_socket(socket)),
        rank_(rank),
        peers_(std::move(peers)),
        stream_(multiplexer, socket) {}

  ~ConnectionScribe() override {
    if (peers_ && node_) peers_->remove(node_);
  }

  void configure_read(caf::io::receive_policy::config config) override {
    stream_.configure_read(config);
    if (std::exchange(launched_, true)) return;
    // CAF counts a connection that has said nothing yet as silent since 1970, and would cut it if a heartbeat was due before
    // the handshake.
    basp().ctx[hdl()].last_seen = basp().clock().now();
    stream_.start(this);
  }

  bool consume(caf::execution_unit* context, const void* data, size_t size) override {
    const bool wanted = scribe::consume(context, data, size);
    if (peers_ && !node_ && !detached()) {
      node_ = basp().instance.tbl().lookup_direct(hdl());  // known once its handshake has come
      if (node_) peers_->add(node_, rank_);
    }
    return wanted;
  }

  void flush() override {
    if (stream_.wr_buf().size() > kMaxPeerBytes) {
      stream_.wr_buf() = {};
      shutdown(stream_.fd(), SHUT_RDWR);  // read as the end of the connection
      return;
    }
    stream_.flush(this);
  }

  void graceful_shutdown() override {
    stream_.graceful_shutdown();
    detach(&stream_.backend(), false);
  }

  void ack_writes(bool enable) override { stream_.ack_writes(enable); }
  std::vector<char>& wr_buf() override { return stream_.wr_buf(); }
  std::vector<char>& rd_buf() override { return stream_.rd_buf(); }
  std::string addr() const override { return rank_ < 0 ? "head" : fmt::format("rank {}", rank_); }
  uint16_t port() const override { return kPublished; }
  void add_to_loop() override { stream_.activate(this); }
  void remove_from_loop() override { stream_.passivate(); }

 private:
  caf::io::basp_broker& basp() { return static_cast<caf::io::basp_broker&>(*parent()); }

  const int32_t rank_;  // -1: the head is at the other end
  const std::shared_ptr<PeerRanks> peers_;
  caf::node_id node_;
  bool launched_ = false;
  caf::io::network::stream_impl<GuardedSocket> stream_;
};

caf::io::scribe_ptr scribe_of(caf::actor_system& system, Descriptor connection, int32_t rank,
                              std::shared_ptr<PeerRanks> peers) {
  fcntl(connection.get(), F_SETFL, fcntl(connection.get(), F_GETFL) | O_NONBLOCK);
  return caf::make_counted<ConnectionScribe>(multiplexer(system), connection.release(), rank, std::move(peers));
}

}  // namespace

void PeerRanks::add(const caf::node_id& node, int32_t rank) {
  const std::lock_guard lock(mutex_);
  ranks_[node] = rank;
}

void PeerRanks::remove(const caf::node_id& node) {
  const std::lock_guard lock(mutex_);
  ranks_.erase(node);
}

std::optional<int32_t> PeerRanks::rank_of(const caf::node_id& node) const {
  const std::lock_guard lock(mutex_);
  const auto it = ranks_.find(node);
  if (it == ranks_.end()) return std::nullopt;
  return it->second;
}

void offer_to_rank(caf::actor_system& system, Descriptor connection, int32_t rank, std::shared_ptr<PeerRanks> peers,
                   const SchedulerForRanks& published) {
  caf::anon_send(basp_broker(system), caf::publish_atom_v,
                 scribe_of(system, std::move(connection), rank, std::move(peers)), kPublished,
                 caf::actor_cast<caf::strong_actor_ptr>(published), system.message_types(published));
}

caf::io::scribe_ptr make_scribe(caf::actor_system& system, Descriptor connection) {
  return scribe_of(system, std::move(connection), -1, nullptr);
}

caf::actor basp_broker(caf::actor_system& system) {
  return system.middleman().named_broker<caf::io::basp_broker>(caf::atom("BASP"));
}

}  // namespace lorikeet::actors
