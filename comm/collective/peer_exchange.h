// How the ranks of one host hand each other a file descriptor: over Unix sockets, whose names and secrets they learn
// from the store. The sockets stay open, so that the death of a rank shows at once.
#pragma once

#include <chrono>
#include <cstdint>
#include <string>
#include <vector>

#include "comm/collective/rendezvous.h"
#include "kernels/base/descriptor.h"
#include "kernels/base/error.h"

namespace lorikeet::comm {

struct PeerExchangeOptions {
  int rank = 0;
  int size = 1;
  std::string prefix;  // of the keys in the store: one per epoch
  std::chrono::milliseconds timeout{30'000};
};

// What a rank offers the others. `about` is for the caller's use: at most kMostAboutBytes.
inline constexpr size_t kMostAboutBytes = 256;
struct PeerOffer {
  Descriptor descriptor;
  std::string about;
};

// The other ranks, by rank; this rank's own place is empty.
struct Peers {
  std::vector<PeerOffer> offers;
  std::vector<Descriptor> lines;  // sockets over which nothing more is sent: their end shows a rank's death
};

// All ranks call it, also those that have nothing to offer, since the others must learn of it: their `offer` is an error,
// with whose sentence the call then fails. Only processes of the same user on the same host are accepted. Fails with a
// sentence; throws as the store does.
Result<Peers> exchange_with_peers(Rendezvous& store, const PeerExchangeOptions& options, Result<PeerOffer> offer);

// Whether all ranks say yes, each once under each name. Waits up to three time-outs, since another rank may have used up its
// own before it says no. Throws as the store does.
bool all_agree(Rendezvous& store, const PeerExchangeOptions& options, const std::string& name, bool yes);

// The rank whose process has ended or closed its line, or -1. Does not wait.
int lost_peer(const Peers& peers);

}  // namespace lorikeet::comm
