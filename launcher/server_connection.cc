#include "launcher/server_connection.h"

namespace lorikeet::launcher {

Result<std::unique_ptr<comm::ZmqClient>> connect_to_server(const std::string& address, comm::Encoding encoding,
                                                           std::chrono::milliseconds patience) {
  auto client = comm::ZmqClient::connect(address, encoding);
  if (client && !(*client)->await_greeting(patience)) {
    return fail("nobody answers at {}: is a server running there, and has it loaded? `lorikeet serve MODEL` starts one",
                address);
  }
  return client;
}

}  // namespace lorikeet::launcher
