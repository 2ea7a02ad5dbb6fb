// Two ranks of one process and device: each has a stream and the other's inbox.
#pragma once

#include <algorithm>
#include <array>
#include <cstdlib>
#include <stdexcept>
#include <utility>

#include "kernels/base/device.h"
#include "kernels/peer/peer_sum_cuda.h"

namespace lorikeet::kernels {

class TwoRanks {
 public:
  static constexpr int kRanks = 2;

  TwoRanks(uint64_t most_ns, int32_t most_blocks) : words_(must(PinnedBuffer::allocate(8, "a test"))) {
    std::fill_n(words_.as<uint32_t>(), 2, 0U);
    for (Rank& rank : ranks_) {
      rank.inbox = must(PeerMemory::make(peer_inbox_bytes(kRanks)));
      rank.turns = must(DeviceBuffer::allocate(peer_turns_bytes(), "a test"));
      rank.stream = must(Stream::make());
      clear_peer_inbox(rank.inbox, kRanks, rank.turns, rank.stream);
    }
    for (size_t r = 0; r < kRanks; r++) {
      PeerGroup& group = ranks_[r].group;
      group.rank = static_cast<int32_t>(r);
      group.ranks = kRanks;
      for (size_t other = 0; other < kRanks; other++) group.inboxes[other] = ranks_[other].inbox.data();
      group.turns = ranks_[r].turns.as<PeerTurns>();
      group.abort = words_.as<uint32_t>();
      group.failure = words_.as<uint32_t>() + 1;
      group.most_ns = most_ns;
      group.most_blocks = most_blocks;
    }
  }

  const PeerGroup& group(size_t rank) const { return ranks_.at(rank).group; }
  const Stream& stream(size_t rank) const { return ranks_.at(rank).stream; }
  PeerFailure failure() const { return static_cast<PeerFailure>(words_.as<uint32_t>()[1]); }

  // Loading a kernel waits until what runs has ended, which ranks of one process that wait for each other would not do: so
  // all are loaded at the start. Called before the device is used.
  static bool load_all_kernels() { return setenv("CUDA_MODULE_LOADING", "EAGER", 0) == 0; }

 private:
  struct Rank {
    PeerMemory inbox;
    DeviceBuffer turns;
    Stream stream;
    PeerGroup group;
  };
  template <class T>
  static T must(Result<T> result) {
    if (!result) throw std::runtime_error(result.error().message);
    return *std::move(result);
  }

  std::array<Rank, kRanks> ranks_;
  PinnedBuffer words_;
};

}  // namespace lorikeet::kernels
