// Steps that blocks share out among themselves, each as many as any other, and where they leave each other the sums of
// an area whose steps several of them make.
#pragma once

#include <cstdint>

namespace lorikeet::kernels::int4 {

// Of `steps` in all, those of block `block` begin here and end where the next one's begin.
constexpr int64_t walk_begin(int64_t steps, int block, int blocks) {
  return steps * block / blocks;
}
constexpr int walker_of(int64_t step, int64_t steps, int blocks) {
  return static_cast<int>(((step + 1) * blocks - 1) / steps);
}
// Where a block keeps its sums of an area that it shares with others and whose steps begin at `area_begin`: one of two
// places of its own, as it shares its first and its last area at most.
constexpr int place_of_sums(int64_t steps, int block, int blocks, int64_t area_begin) {
  return 2 * block + (walk_begin(steps, block, blocks) < area_begin ? 1 : 0);
}

}  // namespace lorikeet::kernels::int4
