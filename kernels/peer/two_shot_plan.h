// Who adds what in a sum of two shots, and where its words lie in the inboxes: arithmetic alone, for the kernels and
// for what chooses among them.
//
// A row is cut into chunks, dealt to the ranks in turn. In the first shot every rank sends a chunk's part to the chunk's
// owner; in the second the owner sends the sum to all. A sender's place in an inbox holds its parts first, then its sums,
// each row by row and without holes but behind the last chunk of a row.
#pragma once

#include <cstdint>

namespace lorikeet::kernels {

struct TwoShotPlan {
  int32_t ranks = 2;
  int32_t rows = 1;
  int32_t chunks = 1;       // of a row
  int32_t chunk_bytes = 0;  // as they are sent

  constexpr int32_t owner(int32_t chunk) const { return chunk % ranks; }
  constexpr int32_t owned_per_row() const { return (chunks + ranks - 1) / ranks; }  // at most
  // Of a chunk in a sender's place, among the parts; among the sums it is first_sum() further on.
  constexpr uint64_t offset(int32_t row, int32_t chunk) const {
    return static_cast<uint64_t>(row * owned_per_row() + chunk / ranks) * static_cast<uint64_t>(chunk_bytes);
  }
  constexpr uint64_t first_sum() const {
    return static_cast<uint64_t>(rows) * static_cast<uint64_t>(owned_per_row()) * static_cast<uint64_t>(chunk_bytes);
  }
  constexpr uint64_t place_bytes() const { return 2 * first_sum(); }
  // An inbox is used again when every rank has heard from every other one: each must own something.
  constexpr bool all_own() const { return chunks >= ranks; }
};

}  // namespace lorikeet::kernels
