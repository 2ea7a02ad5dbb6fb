// The CPU implementations of comm/collective/collective.h.
#pragma once

#include <chrono>
#include <memory>
#include <string>
#include <vector>

#include "comm/collective/collective.h"
#include "comm/collective/rendezvous.h"
#include "kernels/base/error.h"

namespace lorikeet::comm {

// `size` ends of one communicator for ranks that are threads of this process. A rank that throws away its end
// (destruction) is a lost peer to the others.
std::vector<std::unique_ptr<Collective>> make_local_group(int size);

struct GlooOptions {
  int rank = 0;
  int size = 1;
  std::string prefix;                           // of the keys in the store: one per epoch
  std::string interface_address = "127.0.0.1";  // this rank listens on it; or a name of it
  std::chrono::milliseconds connect_timeout{30'000};
  std::chrono::milliseconds operation_timeout{30'000};  // a peer that is silent for so long is lost
};

// Meets the other ranks through `store` and connects to each of them over TCP. The store is used during the call only.
Result<std::unique_ptr<Collective>> make_gloo_collective(Rendezvous& store, const GlooOptions& options);

}  // namespace lorikeet::comm
