// How commands that are clients (`submit`, `chat`, `status`, `bench serve`) connect to a running server.
#pragma once

#include <chrono>
#include <memory>
#include <string>

#include "comm/client/zmq_client.h"
#include "kernels/base/error.h"
#include "launcher/zmq_flags.h"

namespace lorikeet::launcher {

inline constexpr std::chrono::milliseconds kGreetingPatience{1500};  // a server's thread for ZeroMQ answers at once

// A client that the server has greeted. Errors: wrong flags, a wrong address, a key that the server refuses, or no answer
// within `patience`.
Result<std::unique_ptr<comm::ZmqClient>> connect_to_server(const ZmqFlags& server,
                                                           comm::Encoding encoding = comm::Encoding::cereal,
                                                           std::chrono::milliseconds patience = kGreetingPatience);

// Why a handshake with this identity ended so, and what to do, as a sentence.
std::string why_not_greeted(const std::string& address, const comm::ZmqIdentity& identity, comm::Handshake handshake);

}  // namespace lorikeet::launcher
