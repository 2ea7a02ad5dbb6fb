// The flags of commands that are clients of a running server: its address, and the client's keys.
#pragma once

#include <CLI/CLI.hpp>
#include <string>

#include "comm/client/zmq_client.h"
#include "kernels/base/error.h"

namespace lorikeet::launcher {

inline constexpr const char* kDefaultZmq = "tcp://127.0.0.1:5555";

struct ZmqFlags {
  std::string address = kDefaultZmq;
  std::string curve_key;   // file of this client's pair of keys
  std::string server_key;  // public, of the server: itself, or a file that holds it
  bool plain = false;
  std::string tenant = "default", api_key;  // of PLAIN
};

void add_zmq_flags(CLI::App& app, ZmqFlags& flags);

// Who the client is. Errors name the flag that is wrong. PLAIN's key comes from LORIKEET_API_KEY where no flag gives one.
Result<comm::ZmqIdentity> identity_of(const ZmqFlags& flags);

}  // namespace lorikeet::launcher
