// Asks a running server for its status.
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

// Parses the text, which may come from another version: unknown keys are ignored, missing ones have their defaults. Errors: it
// is not a JSON object of such fields.
Result<actors::ServerStatus> read_status(std::string_view json);

}  // namespace lorikeet::launcher
