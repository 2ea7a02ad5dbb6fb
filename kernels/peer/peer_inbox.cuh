// An inbox and how blocks wait on it. Included by .cu files only.
//
// Sums: three parts, used in turn, each with a place for every other rank. A word that has not been sent is kNotSent; a
// rank whose data has this word sends another NaN in its place. While turn t is read, the part of turn t - 1 is made
// kNotSent again: it is written next in turn t + 2, by peers that have seen all of turn t + 1 from this rank, which
// begins when turn t has ended.
//
// Gathers carry any bits, so each word travels with the number of its turn; two parts in turn are enough, as nothing is
// cleared. So do rows (peer_row.cuh), each of which counts turns of its own.
#pragma once

#include <cstddef>

#include "kernels/cuda/device_math.cuh"
#include "kernels/peer/peer_sum_cuda.h"

namespace lorikeet::kernels {

struct alignas(16) PeerTurns {
  uint32_t sum_turn;  // 0 .. 2
  uint32_t failed;
  uint32_t used[3];  // bytes of a sender's place that the last sum of each part took
  uint32_t sum_arrived;
  uint32_t gather_turn;  // counts, and wraps
  uint32_t gather_arrived;
  uint32_t row_turns[kMostPeerRows];  // count, and wrap
  unsigned long long host_looked_ns;  // when a thread last looked whether the host has raised `abort`
};

namespace peer {

inline constexpr uint32_t kNotSent = 0xffffffffU;     // two NaNs of fp16 or bf16, one of float
inline constexpr uint32_t kAnotherNan = 0x7fffffffU;  // likewise
inline constexpr uint64_t kGatherPlace = 2 * kMostPeerGatherBytes;
inline constexpr uint64_t kRowPlace = 2 * kMostPeerRowWords * sizeof(uint32_t);  // words beside their turns' numbers
inline constexpr int kLooksBetween = 512;         // of a thread at the inbox, before it looks around
inline constexpr uint64_t kHostLookNs = 100'000;  // between two looks at the host's memory by any thread of the device

__device__ __forceinline__ unsigned char* sum_place(const PeerGroup& g, int owner, uint32_t turn, int sender) {
  const uint32_t place = turn * (g.ranks - 1) + (sender < owner ? sender : sender - 1);
  return g.inboxes[owner] + place * peer_place_bytes(g.ranks);
}
__host__ __device__ constexpr uint64_t sum_places_bytes(int ranks) {
  return 3 * static_cast<uint64_t>(ranks - 1) * peer_place_bytes(ranks);
}

__device__ __forceinline__ uint2* gather_place(const PeerGroup& g, int owner, uint32_t turn, int sender) {
  return reinterpret_cast<uint2*>(g.inboxes[owner] + sum_places_bytes(g.ranks) +
                                  ((turn & 1) * g.ranks + sender) * kGatherPlace);
}

__device__ __forceinline__ uint2* row_place(const PeerGroup& g, int owner, uint32_t turn, int sender, int row) {
  unsigned char* rows = g.inboxes[owner] + sum_places_bytes(g.ranks) + g.ranks * 2 * kGatherPlace;
  return reinterpret_cast<uint2*>(rows + (((turn & 1) * g.ranks + sender) * kMostPeerRows + row) * kRowPlace);
}

__device__ __forceinline__ uint32_t to_send(uint32_t word) {
  return word == kNotSent ? kAnotherNan : word;
}
__device__ __forceinline__ uint2 to_send(uint2 v) {
  return make_uint2(to_send(v.x), to_send(v.y));
}
__device__ __forceinline__ uint4 to_send(uint4 v) {
  return make_uint4(to_send(v.x), to_send(v.y), to_send(v.z), to_send(v.w));
}

__device__ __forceinline__ void store_to_peer(void* to, uint2 v) {
  asm volatile("st.relaxed.sys.global.v2.u32 [%0], {%1,%2};" ::"l"(to), "r"(v.x), "r"(v.y) : "memory");
}
__device__ __forceinline__ void store_to_peer(void* to, uint4 v) {
  asm volatile("st.relaxed.sys.global.v4.u32 [%0], {%1,%2,%3,%4};" ::"l"(to), "r"(v.x), "r"(v.y), "r"(v.z), "r"(v.w)
               : "memory");
}
__device__ __forceinline__ void look(const void* from, uint2& v) {
  asm volatile("ld.relaxed.sys.global.v2.u32 {%0,%1}, [%2];" : "=r"(v.x), "=r"(v.y) : "l"(from) : "memory");
}
__device__ __forceinline__ void look(const void* from, uint4& v) {
  asm volatile("ld.relaxed.sys.global.v4.u32 {%0,%1,%2,%3}, [%4];"
               : "=r"(v.x), "=r"(v.y), "=r"(v.z), "=r"(v.w)
               : "l"(from)
               : "memory");
}
__device__ __forceinline__ bool is_there(uint2 v) {
  return v.x != kNotSent && v.y != kNotSent;
}
__device__ __forceinline__ bool is_there(uint4 v) {
  return v.x != kNotSent && v.y != kNotSent && v.z != kNotSent && v.w != kNotSent;
}

__device__ __forceinline__ uint64_t nanoseconds() {
  uint64_t now;
  asm volatile("mov.u64 %0, %%globaltimer;" : "=l"(now));
  return now;
}

// A thread's waits within one operation.
class Patience {
 public:
  __device__ __forceinline__ explicit Patience(const PeerGroup& group) : group_(group) {}

  // Counts a look that found something missing. False: do not look again.
  __device__ __forceinline__ bool look_again() {
    if (++looks_ % kLooksBetween != 0) return !ended_;
    return !ended_ && look_around();
  }
  // Whether a wait has ended before its word came.
  __device__ __forceinline__ bool ended() const { return ended_; }

 private:
  // The host's memory is far away, and takes looks one by one, half a microsecond each. Where every thread of a grid that
  // waits made one, the peer waited so much longer for the next sum that all of its threads did, too, and so on: sums of
  // 0.3 to 1.2 ms, for good. So one thread looks for all.
  __device__ __forceinline__ bool look_around() {
    const uint64_t now = nanoseconds();
    if (began_ == 0) began_ = now;
    uint32_t failed;
    asm volatile("ld.relaxed.gpu.global.u32 %0, [%1];" : "=r"(failed) : "l"(&group_.turns->failed) : "memory");
    ended_ = failed != 0;
    if (ended_) return false;
    uint32_t abort = 0;
    if (is_next_to_look(now)) {
      asm volatile("ld.relaxed.sys.global.u32 %0, [%1];" : "=r"(abort) : "l"(group_.abort) : "memory");
    }
    const bool late = now - began_ > group_.most_ns;
    if (abort == 0 && !late) return true;
    ended_ = true;
    const auto why = static_cast<uint32_t>(abort != 0 ? PeerFailure::aborted : PeerFailure::timeout);
    asm volatile("st.relaxed.sys.global.u32 [%0], %1;" ::"l"(group_.failure), "r"(why) : "memory");
    asm volatile("st.relaxed.gpu.global.u32 [%0], %1;" ::"l"(&group_.turns->failed), "r"(1) : "memory");
    return false;
  }
  __device__ __forceinline__ bool is_next_to_look(uint64_t now) const {
    auto* looked = &group_.turns->host_looked_ns;
    unsigned long long last;
    asm volatile("ld.relaxed.gpu.global.u64 %0, [%1];" : "=l"(last) : "l"(looked) : "memory");
    if (last + kHostLookNs > now) return false;
    return atomicMax(looked, static_cast<unsigned long long>(now)) == last;
  }

  const PeerGroup& group_;
  uint64_t began_ = 0;
  int looks_ = 0;
  bool ended_ = false;
};

// The turns as the operation finds them, for all threads of the block, by way of shared memory.
__device__ __forceinline__ void read_turns(const PeerGroup& group, PeerTurns* seen) {
  constexpr int kVectors = offsetof(PeerTurns, row_turns) / sizeof(uint4);
  if (threadIdx.x < kVectors) {
    reinterpret_cast<uint4*>(seen)[threadIdx.x] = __ldcg(reinterpret_cast<const uint4*>(group.turns) + threadIdx.x);
  }
  __syncthreads();
}

// By thread 0 of every block behind read_turns: the last one to come ends the turn for the operation behind.
template <class End>
__device__ __forceinline__ void leave_turn(uint32_t* arrived, End&& end) {
  if (gridDim.x > 1) {
    if (atomicAdd(arrived, 1) != gridDim.x - 1) return;
    *arrived = 0;
  }
  end();
}

}  // namespace peer
}  // namespace lorikeet::kernels
