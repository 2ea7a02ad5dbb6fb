#include "launcher/server_connection.h"

namespace lorikeet::launcher {

Result<std::unique_ptr<comm::ZmqClient>> connect_to_server(const ZmqFlags& server, comm::Encoding encoding,
                                                           std::chrono::milliseconds patience) {
  const auto identity = identity_of(server);
  if (!identity) return tl::unexpected(identity.error());
  auto client = comm::ZmqClient::connect(server.address, encoding, *identity);
  if (client && !(*client)->await_greeting(patience)) {
    return fail("nobody answers at {}: is a server running there, and has it loaded? `lorikeet serve MODEL` starts one",
                server.address);
  }
  return client;
}

}  // namespace lorikeet::launcher
