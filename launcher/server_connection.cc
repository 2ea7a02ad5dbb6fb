#include "launcher/server_connection.h"

#include <fmt/format.h>

namespace lorikeet::launcher {
namespace {

std::string key_of(const comm::ZmqIdentity& identity) {
  if (!identity.server_key.empty()) return "the key of --zmq-curve-key";
  return fmt::format("this key as one of the tenant \"{}\" (--tenant says whose it is)", identity.user);
}

}  // namespace

std::string why_not_greeted(const std::string& address, const comm::ZmqIdentity& identity, comm::Handshake handshake) {
  const bool has_key = !identity.server_key.empty() || !identity.password.empty();
  switch (handshake) {
    case comm::Handshake::key:
      if (has_key) return fmt::format("the server at {} does not take {}", address, key_of(identity));
      break;
    case comm::Handshake::mechanism:
      if (!has_key) {
        return fmt::format(
            "the server at {} asks for a key: give --api-key and --tenant, or --zmq-curve-key and --zmq-server-key",
            address);
      }
      return fmt::format("the server at {} asks for no key, or for one of another kind than {}", address,
                         identity.server_key.empty() ? "--api-key (PLAIN)" : "--zmq-curve-key (CURVE)");
    case comm::Handshake::cut:  // whoever finds first that mechanisms differ hangs up
      if (!identity.server_key.empty()) {
        return fmt::format("whoever answers at {} is not the server of --zmq-server-key, or asks for no key of CURVE",
                           address);
      }
      return fmt::format(
          "whoever answers at {} hangs up; {}", address,
          has_key ? "a server does where it asks for no key, or for one of another kind than --api-key (PLAIN)"
                  : "a server does where it asks for a key: give --api-key and --tenant, or --zmq-curve-key "
                    "and --zmq-server-key");
    case comm::Handshake::none:
      break;
  }
  return fmt::format(
      "nobody answers at {}: is a server running there, and has it loaded? `lorikeet serve MODEL` starts one", address);
}

Result<std::unique_ptr<comm::ZmqClient>> connect_to_server(const ZmqFlags& server, comm::Encoding encoding,
                                                           std::chrono::milliseconds patience) {
  const auto identity = identity_of(server);
  if (!identity) return tl::unexpected(identity.error());
  auto client = comm::ZmqClient::connect(server.address, encoding, *identity);
  if (client && !(*client)->await_greeting(patience)) {
    return fail("{}", why_not_greeted(server.address, *identity, (*client)->handshake()));
  }
  return client;
}

}  // namespace lorikeet::launcher
