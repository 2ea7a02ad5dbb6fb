// The one addition of the CPU collectives: every rank adds the same terms in the same order.
#pragma once

#include <algorithm>
#include <cstddef>
#include <utility>
#include <vector>

namespace lorikeet::comm {

// out [count] = ((terms[0] + terms[1]) + terms[2]) + ..., each term [count]. out may be one of the terms.
inline void ordered_sum(const std::vector<const float*>& terms, float* out, size_t count) {
  constexpr size_t kBlock = 1024;  // the partial sums of a block stay in the first-level cache
  float sums[kBlock];
  for (size_t begin = 0; begin < count; begin += kBlock) {
    const size_t size = std::min(kBlock, count - begin);
    std::copy_n(terms[0] + begin, size, sums);
    for (size_t t = 1; t < terms.size(); ++t) {
      const float* term = terms[t] + begin;
      for (size_t i = 0; i < size; ++i) sums[i] += term[i];
    }
    std::copy_n(sums, size, out + begin);
  }
}

// The part of count elements that rank `rank` of `size` reduces: [first, second).
inline std::pair<size_t, size_t> chunk_of(size_t count, int rank, int size) {
  const size_t part = count / size, rest = count % size, r = static_cast<size_t>(rank);
  const size_t begin = r * part + std::min(r, rest);
  return {begin, begin + part + (r < rest ? 1 : 0)};
}

}  // namespace lorikeet::comm
