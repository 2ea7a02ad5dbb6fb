// The flags for keys and tenants, of HTTP and ZeroMQ, and the files that they name.
#pragma once

#include <CLI/CLI.hpp>
#include <string>
#include <vector>

#include "actors/wire/options.h"
#include "kernels/base/error.h"

namespace lorikeet::launcher {

struct AccessFlags {
  std::vector<std::string> api_keys;
  std::string api_key_file;
  bool allow_unauthenticated = false;
  bool zmq_plain = false;
  std::string zmq_curve_key;      // file of the server's pair of keys
  std::string zmq_curve_clients;  // file: a public key per line, and its tenant behind it where it has one
};

// For `serve`.
void add_access_flags(CLI::App& app, AccessFlags& flags);

// Reads the files and the environment (LORIKEET_API_KEY, else VLLM_API_KEY, where no flag gives a key), and refuses
// addresses that strangers could reach without a key. http_host is empty where there is no HTTP door.
Result<actors::AccessOptions> resolve(const AccessFlags& flags, const std::string& http_host,
                                      const std::string& zmq_address);

// A warning where HTTP asks for keys and ZeroMQ does not, so that clients can avoid the keys. Empty where ZeroMQ asks, too,
// or there are no keys, or the flags explicitly let everybody in.
std::string way_round_keys(const AccessFlags& flags, const actors::AccessOptions& access,
                           const std::string& zmq_address);

}  // namespace lorikeet::launcher
