// The client's end of the client protocol (comm/PROTOCOL.md): a ZeroMQ DEALER.
#pragma once

#include <cstdint>
#include <memory>
#include <string>

#include "comm/client/server_client.h"

namespace lorikeet::comm {

// What a server asks for: CURVE where server_key is given, PLAIN where a password is.
struct ZmqIdentity {
  std::string server_key;              // public, of the server, Z85
  std::string public_key, secret_key;  // this client's own, Z85
  std::string user, password;          // a tenant's name and its key
};

// What the last handshake has come to.
enum class Handshake : uint8_t {
  none,  // nobody listens there, or the handshake is not over
  cut,   // the other end hung up in the middle of it: as `mechanism`, or of CURVE it has not the key that was given
  mechanism,  // it asks for a key of another kind, or for none; where the other end finds it first, this is `cut`
  key,        // it does not take this one
};

// Messages leave once the server has greeted this client: the first waits up to a second for that, then they are held
// until receive() sees it. Go on calling receive() while answers are awaited: it sends this client's heartbeats. A server
// that is silent for 5 heartbeats is lost.
class ZmqClient : public ServerClient {
 public:
  // Of a client that no server has greeted: why. await_greeting() returns early where waiting on is of no use.
  virtual Handshake handshake() const = 0;

  static Result<std::unique_ptr<ZmqClient>> connect(const std::string& address, Encoding encoding = Encoding::cereal,
                                                    const ZmqIdentity& identity = {});
};

}  // namespace lorikeet::comm
