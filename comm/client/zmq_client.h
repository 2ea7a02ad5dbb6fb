// The client's end of the client protocol (comm/PROTOCOL.md): a ZeroMQ DEALER.
#pragma once

#include <memory>
#include <string>

#include "comm/client/server_client.h"

namespace lorikeet::comm {

// Messages leave once the server has greeted this client: the first waits up to a second for that, then they are held
// until receive() sees it. Go on calling receive() while answers are awaited: it sends this client's heartbeats. A server
// that is silent for 5 heartbeats is lost.
class ZmqClient : public ServerClient {
 public:
  static Result<std::unique_ptr<ZmqClient>> connect(const std::string& address, Encoding encoding = Encoding::cereal);
};

}  // namespace lorikeet::comm
