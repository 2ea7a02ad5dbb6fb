// The way of the commands that are clients (`submit`, `chat`, `status`, `bench serve`) to a running server.
#pragma once

#include <chrono>
#include <memory>
#include <string>

#include "comm/client/zmq_client.h"
#include "kernels/base/error.h"

namespace lorikeet::launcher {

inline constexpr const char* kDefaultZmq = "tcp://127.0.0.1:5555";
inline constexpr std::chrono::milliseconds kGreetingPatience{1500};  // a server's thread for ZeroMQ answers at once

// A client that a server has greeted. Errors: the address, or that nobody answers there within `patience`.
Result<std::unique_ptr<comm::ZmqClient>> connect_to_server(const std::string& address,
                                                           comm::Encoding encoding = comm::Encoding::cereal,
                                                           std::chrono::milliseconds patience = kGreetingPatience);

}  // namespace lorikeet::launcher
