// What a client does with a server, whichever door it has come through.
#pragma once

#include <chrono>
#include <optional>

#include "comm/client/client_messages.h"
#include "kernels/base/error.h"

namespace lorikeet::comm {

// Threads: one thread uses a client.
class ServerClient {
 public:
  virtual ~ServerClient() = default;

  // Whether a server has greeted this client; waits for that as long as `timeout`. False also where the server listens
  // and is too busy to answer.
  virtual bool await_greeting(std::chrono::milliseconds timeout) = 0;

  // Errors: the message cannot be sent.
  virtual Result<void> send(const ClientMessage& message) = 0;

  // The next answer; nullopt when none came in time. A server that is lost gives a Failure{code = "server_lost"} with an
  // empty id, once; the requests may then be sent again.
  virtual std::optional<ServerMessage> receive(std::chrono::milliseconds timeout) = 0;
};

}  // namespace lorikeet::comm
