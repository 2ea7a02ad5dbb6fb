// How a tensor is summed over the GPUs of one host. It depends on its size and the number of ranks only, so that all ranks
// decide alike and the result's bits do not change between starts.
#pragma once

#include <cstdint>
#include <limits>

namespace lorikeet::comm {

// Over the memory of peers in one or two shots (kernels/peer/peer_sum_cuda.h), or by NCCL.
enum class SumBy { one_shot, two_shot, library };

// Up to how many bytes, for up to so many ranks.
struct SumTableRow {
  int ranks;  // up to so many
  uint64_t most_one_shot;
  uint64_t most_two_shot;
};
// One shot up to the size where, with the norm behind it, it was still measured faster than two shots or NCCL
// (bench/RESULTS.md, "Two and four GPUs"). Two shots have been timed over two ranks only; over more ranks they move fewer
// bytes than one shot does, but where they end is a guess, and so is the whole row of eight ranks.
inline constexpr SumTableRow kSumTable[] = {
    {2, 1280 << 10, std::numeric_limits<uint64_t>::max()}, {4, 960 << 10, 2560 << 10}, {8, 640 << 10, 2560 << 10}};

// For a tensor of so many bytes, where peers reach each other's memory.
constexpr SumBy sum_by(uint64_t bytes, int ranks) {
  for (const SumTableRow& row : kSumTable) {
    if (ranks > row.ranks) continue;
    if (bytes <= row.most_one_shot) return SumBy::one_shot;
    return bytes <= row.most_two_shot ? SumBy::two_shot : SumBy::library;
  }
  return SumBy::library;
}

}  // namespace lorikeet::comm
