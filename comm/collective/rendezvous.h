// The key-value store through which ranks find each other before a communicator exists.
#pragma once

#include <chrono>
#include <cstdint>
#include <string>
#include <vector>

namespace lorikeet::comm {

// Threads: any. Errors: get throws CollectiveError{timeout} (comm/collective/collective.h) when the key does not appear
// in time, CollectiveError{aborted} or {peer_lost} when the store is gone.
class Rendezvous {
 public:
  virtual ~Rendezvous() = default;
  virtual void set(const std::string& key, const std::vector<uint8_t>& value) = 0;
  virtual std::vector<uint8_t> get(const std::string& key, std::chrono::milliseconds timeout) = 0;
};

}  // namespace lorikeet::comm
