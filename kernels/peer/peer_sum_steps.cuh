// What kernels that sum over ranks share: turns, sending, looking, and the addition in the order of the ranks. Included by
// .cu files only.
#pragma once

#include "kernels/peer/peer_inbox.cuh"

namespace lorikeet::kernels::peer {

inline constexpr int kVectorBytes = 16;

// Ends the turn for the sum behind: by thread 0 of every block.
__device__ __forceinline__ void leave_sum(const PeerGroup& group, const PeerTurns& seen, uint64_t bytes) {
  leave_turn(&group.turns->sum_arrived, [&] {
    group.turns->used[seen.sum_turn] = static_cast<uint32_t>((bytes + kVectorBytes - 1) / kVectorBytes * kVectorBytes);
    group.turns->sum_turn = seen.sum_turn == 2 ? 0 : seen.sum_turn + 1;
  });
}

// Makes the part of the turn before ready for the turn after the next: by all blocks together.
__device__ __forceinline__ void clear_last_part(const PeerGroup& group, const PeerTurns& seen) {
  const uint32_t last = seen.sum_turn == 0 ? 2 : seen.sum_turn - 1;
  const auto vectors = static_cast<int>(seen.used[last] / kVectorBytes);
  const uint4 empty = make_uint4(kNotSent, kNotSent, kNotSent, kNotSent);
  for (int s = 0; s < group.ranks; s++) {
    if (s == group.rank) continue;
    auto* place = reinterpret_cast<uint4*>(sum_place(group, group.rank, last, s));
    for (int i = blockIdx.x * blockDim.x + threadIdx.x; i < vectors; i += gridDim.x * blockDim.x) place[i] = empty;
  }
}

// The i-th of the ranks but this one.
__device__ __forceinline__ int other_rank(const PeerGroup& group, int i) {
  return i < group.rank ? i : i + 1;
}

template <int kRanks, class Vector>
__device__ __forceinline__ void send(const PeerGroup& group, uint32_t turn, uint64_t offset, Vector v) {
  v = to_send(v);
#pragma unroll
  for (int i = 0; i + 1 < kRanks; i++) {
    if (i + 1 < group.ranks) {
      store_to_peer(sum_place(group, other_rank(group, i), turn, group.rank) + offset, v);
    }
  }
}

template <int kRanks, class Vector>
__device__ __forceinline__ void look_at_all(const PeerGroup& group, uint32_t turn, uint64_t offset,
                                            Vector (&got)[kRanks - 1]) {
#pragma unroll
  for (int i = 0; i + 1 < kRanks; i++) {
    if (i + 1 < group.ranks) {
      look(sum_place(group, group.rank, turn, other_rank(group, i)) + offset, got[i]);
    }
  }
}

// Looks again at what was not there, of the vectors that are used: at all of it at once, since a look takes its time and
// what was sent together comes together.
template <int kRanks, int kVectors, class Vector, class Used, class Offset>
__device__ __forceinline__ void wait_for_all(const PeerGroup& group, uint32_t turn, const Used& used,
                                             const Offset& offset, Vector (&got)[kVectors][kRanks - 1],
                                             Patience& patience) {
  const auto is_missing = [&](int v, int i) { return i + 1 < group.ranks && used(v) && !is_there(got[v][i]); };
  for (;;) {
    bool missing = false;
#pragma unroll
    for (int v = 0; v < kVectors; v++) {
#pragma unroll
      for (int i = 0; i + 1 < kRanks; i++) missing |= is_missing(v, i);
    }
    if (!missing || !patience.look_again()) return;
#pragma unroll
    for (int v = 0; v < kVectors; v++) {
#pragma unroll
      for (int i = 0; i + 1 < kRanks; i++) {
        if (is_missing(v, i)) {
          look(sum_place(group, group.rank, turn, other_rank(group, i)) + offset(v), got[v][i]);
        }
      }
    }
  }
}

// add(part) for every rank's part in the order of the ranks.
template <int kRanks, class Vector, class Add>
__device__ __forceinline__ void add_in_order(const PeerGroup& group, Vector own, const Vector (&got)[kRanks - 1],
                                             Add&& add) {
#pragma unroll
  for (int s = 0; s < kRanks; s++) {
    if (s >= group.ranks) break;
    Vector part = own;
    if (s < kRanks - 1 && s < group.rank) part = got[s < kRanks - 1 ? s : 0];
    if (s > 0 && s > group.rank) part = got[s > 0 ? s - 1 : 0];
    add(part);
  }
}

template <class T>
__device__ __forceinline__ void add_words(float4& sum, uint2 part, bool first) {
  const float2 low = device::unpack<T>(part.x);
  const float2 high = device::unpack<T>(part.y);
  if (first) {
    sum = make_float4(low.x, low.y, high.x, high.y);
  } else {
    sum = make_float4(sum.x + low.x, sum.y + low.y, sum.z + high.x, sum.w + high.y);
  }
}

// Vectors of 16 bytes, the last one perhaps not whole.
template <class T>
__device__ __forceinline__ uint4 load_vector(const T* data, uint64_t count) {
  constexpr uint64_t kElements = kVectorBytes / sizeof(T);
  if (count >= kElements) return *reinterpret_cast<const uint4*>(data);
  alignas(16) T elements[kElements];
  for (uint64_t i = 0; i < kElements; i++) elements[i] = i < count ? data[i] : device::from_float<T>(0.0F);
  return *reinterpret_cast<const uint4*>(elements);
}
template <class T>
__device__ __forceinline__ void store_vector(T* data, uint64_t count, uint4 v) {
  constexpr uint64_t kElements = kVectorBytes / sizeof(T);
  if (count >= kElements) {
    *reinterpret_cast<uint4*>(data) = v;
    return;
  }
  alignas(16) T elements[kElements];
  *reinterpret_cast<uint4*>(elements) = v;
  for (uint64_t i = 0; i < count; i++) data[i] = elements[i];
}

// The sum of vectors of T, and how it is rounded.
template <class T>
struct VectorSum {
  float4 low, high;
  __device__ __forceinline__ void add(uint4 part, bool first) {
    add_words<T>(low, make_uint2(part.x, part.y), first);
    add_words<T>(high, make_uint2(part.z, part.w), first);
  }
  __device__ __forceinline__ uint4 rounded() const {
    return make_uint4(device::pack<T>(low.x, low.y), device::pack<T>(low.z, low.w), device::pack<T>(high.x, high.y),
                      device::pack<T>(high.z, high.w));
  }
};
template <>
struct VectorSum<float> {
  float4 sum;
  __device__ __forceinline__ void add(uint4 part, bool first) {
    const float4 v =
        make_float4(__uint_as_float(part.x), __uint_as_float(part.y), __uint_as_float(part.z), __uint_as_float(part.w));
    sum = first ? v : make_float4(sum.x + v.x, sum.y + v.y, sum.z + v.z, sum.w + v.w);
  }
  __device__ __forceinline__ uint4 rounded() const {
    return make_uint4(__float_as_uint(sum.x), __float_as_uint(sum.y), __float_as_uint(sum.z), __float_as_uint(sum.w));
  }
};

}  // namespace lorikeet::kernels::peer
