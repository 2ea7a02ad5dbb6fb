// A worker's side of comm/cluster/tls_listener.h.
#pragma once

#include <chrono>
#include <cstdint>
#include <string>
#include <vector>

#include "comm/cluster/tls.h"
#include "kernels/base/error.h"

namespace lorikeet::comm {

struct DialOptions {
  std::string host;  // a name or an address
  uint16_t port = 0;
  std::string token;
  std::chrono::milliseconds timeout{5'000};  // beyond the look-up of the name, whose time the system decides
};

// Connects, checks the head's certificate, and sends token and words. In TLS 1.3 this side is done before the head has
// decided: if it is not admitted, it reads the end of the connection next. Errors are sentences.
Result<TlsConnection> dial(const TlsContext& context, const DialOptions& options, const std::vector<uint8_t>& words);

}  // namespace lorikeet::comm
