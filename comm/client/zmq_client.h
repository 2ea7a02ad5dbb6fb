// The client's end of the client protocol (comm/PROTOCOL.md): a ZeroMQ DEALER.
#pragma once

#include <chrono>
#include <memory>
#include <optional>
#include <string>

#include "comm/client/client_messages.h"
#include "kernels/base/error.h"

namespace lorikeet::comm {

// What a server asks for: CURVE where server_key is given, PLAIN where a password is.
struct ZmqIdentity {
  std::string server_key;              // public, of the server, Z85
  std::string public_key, secret_key;  // this client's own, Z85
  std::string user, password;          // a tenant's name and its key
};

// Threads: one thread uses a client.
class ZmqClient {
 public:
  static Result<std::unique_ptr<ZmqClient>> connect(const std::string& address, Encoding encoding = Encoding::cereal,
                                                    const ZmqIdentity& identity = {});
  virtual ~ZmqClient() = default;

  // Messages leave once the server has greeted this client: the first waits up to a second for that, then they are
  // held until receive() sees it. Go on calling receive() while answers are awaited: it sends this client's heartbeats.
  virtual Result<void> send(const ClientMessage& message) = 0;

  // The next answer; nullopt when none came in time. A server that is silent for 5 heartbeats gives a
  // Failure{code = "server_lost"} with an empty id, once; the requests may then be sent again.
  virtual std::optional<ServerMessage> receive(std::chrono::milliseconds timeout) = 0;
};

}  // namespace lorikeet::comm
