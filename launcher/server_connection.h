// The way of the commands that are clients (`submit`, `chat`, `status`, `bench serve`) to a running server.
#pragma once

#include <chrono>
#include <memory>
#include <string>

#include "comm/client/zmq_client.h"
#include "kernels/base/error.h"
#include "launcher/zmq_flags.h"

namespace lorikeet::launcher {

inline constexpr std::chrono::milliseconds kGreetingPatience{1500};  // a server's thread for ZeroMQ answers at once

// A client that a server has greeted. Errors: the flags, the address, that the server does not take the key, or that
// nobody answers there within `patience`.
Result<std::unique_ptr<comm::ZmqClient>> connect_to_server(const ZmqFlags& server,
                                                           comm::Encoding encoding = comm::Encoding::cereal,
                                                           std::chrono::milliseconds patience = kGreetingPatience);

// A sentence for people: what a client of this identity lacks whose handshake ended like that.
std::string why_not_greeted(const std::string& address, const comm::ZmqIdentity& identity, comm::Handshake handshake);

}  // namespace lorikeet::launcher
