// The flags of commands that are clients of a running server: where it is, and what it asks of its clients.
#pragma once

#include <CLI/CLI.hpp>
#include <memory>
#include <string>

#include "comm/client/zmq_client.h"
#include "kernels/base/error.h"

namespace lorikeet::launcher {

struct ZmqFlags {
  std::string address = "tcp://127.0.0.1:5555";
  std::string curve_key;   // file of this client's pair of keys
  std::string server_key;  // public, of the server: itself, or a file that holds it
  bool plain = false;
  std::string tenant = "default", api_key;  // of PLAIN
};

void add_zmq_flags(CLI::App& app, ZmqFlags& flags);

// Errors name the flag that is wrong. PLAIN's key comes from LORIKEET_API_KEY where no flag gives one.
Result<std::unique_ptr<comm::ZmqClient>> connect(const ZmqFlags& flags, comm::Encoding encoding);

}  // namespace lorikeet::launcher
