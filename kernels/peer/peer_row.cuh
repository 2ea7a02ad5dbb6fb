// Words that blocks of different ranks tell each other within a kernel: one block of each rank has a row, sends words of
// it to the same row's block of every other rank and waits for theirs. Included by .cu files that draw over a cut
// vocabulary.
//
// All ranks must run the kernel, with the same rows and the same exchanges of each; a block may send only when the rest
// of its kernel needs no room that waiting blocks hold: at most kMostPeerRows blocks of a kernel do.
//
// A row's exchanges take two places in turn: when a rank sends what is two turns on, it has seen all words of the turn
// between, which its peers sent behind their last look at the place.
#pragma once

#include "kernels/peer/peer_inbox.cuh"

namespace lorikeet::kernels::peer {

// One row's exchanges of one kernel, by the threads of one block; all of them must meet (a barrier) between receiving
// words of one turn and sending words of the next one.
class Row {
 public:
  __device__ __forceinline__ Row(const PeerGroup& group, int row) : group_(group), row_(row), patience_(group) {
    turn_ = __ldcg(&group.turns->row_turns[row]);
    failed_ = __ldcg(&group.turns->failed) != 0;
  }

  // Word `i` of this turn, i < kMostPeerRowWords, to every other rank.
  __device__ __forceinline__ void send(int i, uint32_t word) const {
    if (failed_) return;
    for (int r = 0; r < group_.ranks; r++) {
      if (r != group_.rank) store_to_peer(row_place(group_, r, turn_, group_.rank, row_) + i, make_uint2(word, turn_));
    }
  }
  // That of another rank: waits for it. Undefined once the wait has ended early.
  __device__ __forceinline__ uint32_t receive(int rank, int i) {
    if (failed_) return 0;
    const uint2* place = row_place(group_, group_.rank, turn_, rank, row_) + i;
    uint2 got;
    do {
      look(place, got);
    } while (got.y != turn_ && patience_.look_again());
    return got.x;
  }
  __device__ __forceinline__ unsigned long long receive_long(int rank, int i) {
    const unsigned long long low = receive(rank, i);
    return low | static_cast<unsigned long long>(receive(rank, i + 1)) << 32;
  }
  // f(rank) for the other ranks.
  template <class F>
  __device__ __forceinline__ void for_each_other(F&& f) const {
    for (int r = 0; r < group_.ranks; r++) {
      if (r != group_.rank) f(r);
    }
  }
  __device__ __forceinline__ void next_turn() { turn_++; }
  // By one thread, behind the last turn.
  __device__ __forceinline__ void leave() const { group_.turns->row_turns[row_] = turn_; }

  // Of this thread: what was received may be wrong.
  __device__ __forceinline__ bool failed() const { return failed_ || patience_.ended(); }

 private:
  const PeerGroup& group_;
  const int row_;
  Patience patience_;
  uint32_t turn_;
  bool failed_;
};

}  // namespace lorikeet::kernels::peer
