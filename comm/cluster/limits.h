// What connections that have not been admitted can cost the head.
#pragma once

#include <chrono>
#include <cstddef>

namespace lorikeet::comm {

struct AdmissionLimits {
  std::chrono::milliseconds time{5'000};  // from the connection to the last byte of its first words
  size_t unfinished = 512;                // connections; for one more, the oldest of the busiest source goes
  size_t unfinished_per_source = 64;      // of one address (IPv6: of one /64); for one more, its oldest goes
  size_t bytes = 64 << 10;                // that it may send, handshake included
};

inline constexpr size_t kMaxFirstWords = 16 << 10;  // what a worker says before it is admitted, token included
inline constexpr size_t kMaxTokenBytes = 1 << 10;

}  // namespace lorikeet::comm
