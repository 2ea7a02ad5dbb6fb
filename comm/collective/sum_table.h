// Who makes the sum of a tensor over the GPUs of one host: decided by its size and the number of ranks alone, so that
// all ranks decide alike and a tensor's bits do not change between starts.
#pragma once

#include <cstdint>

namespace lorikeet::comm {

enum class SumBy { peers, library };

// Bytes that each rank sends to each other, at most; above, the library's rings send less. Of sums alone and of sums
// with the norm behind them.
struct SumTableRow {
  int ranks;  // up to so many
  uint64_t most_alone;
  uint64_t most_with_norm;
};
inline constexpr SumTableRow kSumTable[] = {{4, 960 << 10, 960 << 10}, {8, 320 << 10, 640 << 10}};

// Of a tensor of so many bytes, where peers reach each other's memory.
constexpr SumBy sum_by(uint64_t bytes, int ranks, bool with_norm) {
  for (const SumTableRow& row : kSumTable) {
    if (ranks > row.ranks) continue;
    return bytes <= (with_norm ? row.most_with_norm : row.most_alone) ? SumBy::peers : SumBy::library;
  }
  return SumBy::library;
}

}  // namespace lorikeet::comm
