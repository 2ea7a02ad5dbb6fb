// A TLS connection that one thread reads and writes for itself, in frames: 4 bytes of length, little endian, and so many
// bytes. For what is large and would hold up others in a relay (comm/cluster/tls_relay.h).
#pragma once

#include <chrono>
#include <cstdint>
#include <span>
#include <vector>

#include "comm/cluster/tls.h"
#include "kernels/base/error.h"

namespace lorikeet::comm {

// Threads: one sends and receives; end from any, at any time.
class TlsStream {
 public:
  // patience: how long sending or receiving may wait for the next byte to go or come.
  TlsStream(TlsConnection connection, std::chrono::milliseconds patience)
      : connection_(std::move(connection)), patience_(patience) {}

  Result<void> send(std::span<const uint8_t> frame);

  // Errors: the connection has ended, or the frame is larger than `most`. Memory is allocated as bytes come in.
  Result<std::vector<uint8_t>> receive(size_t most);

  // Makes the present and all later calls fail.
  void end() const;

  const std::string& peer_address() const { return connection_.peer_address; }

 private:
  Result<void> write_all(std::span<const uint8_t> bytes);
  Result<void> read_all(std::span<uint8_t> bytes);

  TlsConnection connection_;
  const std::chrono::milliseconds patience_;
};

}  // namespace lorikeet::comm
