// The server's end of the client protocol (comm/PROTOCOL.md): a ZeroMQ ROUTER on a thread of its own.
//
// Framing, versions, both encodings, heartbeats and limits are handled here; what comes out is a checked message, what
// goes in is a message. Every malformed frame is answered with a Failure{code = "malformed"}.
#pragma once

#include <cstdint>
#include <functional>
#include <memory>
#include <optional>
#include <string>
#include <string_view>
#include <variant>

#include "comm/client/client_messages.h"
#include "comm/client/limits.h"
#include "kernels/base/error.h"

namespace lorikeet::comm {

using ClientId = uint64_t;  // one per connected client, never reused

// Who may connect. ZeroMQ asks for each connection, on the server's thread.
enum class ZmqMechanism : uint8_t { none, plain, curve };

// The name that the server's owner gives to whoever comes with it; nullopt: nobody, and the connection is refused.
struct ZmqUsers {
  std::function<std::optional<std::string>(const std::string& public_key)> of_curve_key;  // Z85
  std::function<std::optional<std::string>(std::string_view user, std::string_view password)> of_password;
};

struct ZmqServerOptions {
  std::string address = "tcp://127.0.0.1:5555";  // any ZeroMQ endpoint; port 0 or * picks one
  int64_t max_message_bytes = kMaxBodyBytes;
  int64_t max_pending_bytes =
      kMaxUnreadBytes;      // answers that a client has not read; past it the client is dropped (on_gone)
  int heartbeat_ms = 2000;  // a client that said nothing for 5 heartbeats is gone
  int handshake_ms = 3000;  // a connection that is not ZeroMQ's by then is cut
  ZmqMechanism mechanism = ZmqMechanism::none;
  std::string secret_key;      // the server's, of CURVE, Z85
  ZmqUsers users;              // of plain or curve
  size_t max_connections = 0;  // 0: what the process's descriptors allow, some left for ranks and files
  size_t max_unspoken = kMaxUnspokenConnections;  // of TCP, that have sent no message: they may be in their handshake
};

// Called on the server's thread; they must not block.
struct ZmqServerCallbacks {
  std::function<void(ClientId, const std::string& user)>
      on_user;  // before its first message; not of ZmqMechanism::none
  std::function<void(ClientId, ClientMessage)> on_message;
  std::function<void(ClientId)> on_gone;  // every request of this client is to be cancelled
};

// Removes the socket of an ipc:// address that nobody listens at any more; a server that was killed leaves it behind.
void remove_dead_socket(const std::string& address);

class ZmqServer {
 public:
  static Result<std::unique_ptr<ZmqServer>> start(const ZmqServerOptions& options, ZmqServerCallbacks callbacks);
  virtual ~ZmqServer() = default;

  virtual std::string address() const = 0;  // with the port that was taken

  // Threads: any. Messages to clients that are gone are dropped.
  virtual void send(ClientId client, ServerMessage message) = 0;
};

}  // namespace lorikeet::comm
