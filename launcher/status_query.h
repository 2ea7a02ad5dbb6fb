// Asking a running server how it is.
#pragma once

#include <chrono>
#include <string>
#include <string_view>

#include "actors/wire/server_status.h"
#include "comm/client/zmq_client.h"
#include "kernels/base/error.h"

namespace lorikeet::launcher {

// The server's status as JSON text (comm/PROTOCOL.md), and how long the answer took.
struct StatusAnswer {
  std::string json;
  double seconds = 0;
};

// Errors: the server's refusal, no answer in time.
Result<StatusAnswer> ask_status(comm::ServerClient& client, std::chrono::seconds patience);

// What the text says. It may be of another version: unknown keys are passed over, and what is missing has its default.
// Errors: it is not a JSON object of such fields.
Result<actors::ServerStatus> read_status(std::string_view json);

}  // namespace lorikeet::launcher
