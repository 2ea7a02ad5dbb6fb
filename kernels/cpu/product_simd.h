// The loops of matrix products over a vector type V (kernels/cpu/simd.h): how they are cut into tiles.
//
// Every (output, row) pair has one vector of sums that takes the inputs in order, a vector of them at a time, and is
// added up at the end. That is so in tiles of any size, hence a row's result is the same in any batch.
// Everything is local to the file that includes this: functions with these instructions must not be shared with others.
#pragma once

#include <cstdint>
#include <type_traits>
#include <utility>

#include "kernels/cpu/product_cpu.h"

namespace lorikeet::kernels {
namespace {

// Calls f(std::integral_constant<int, size>, first) over [begin, end) in tiles of `Tile`, and one smaller one, or two where
// that would be a single one behind a whole tile: too few sums to keep the multipliers busy.
template <int Tile, class F>
inline void for_tiles(int64_t begin, int64_t end, const F& f) {
  for (; begin + Tile <= end && (Tile < 3 || end - begin != Tile + 1); begin += Tile) {
    f(std::integral_constant<int, Tile>(), begin);
  }
  auto rest = end - begin;
  if constexpr (Tile > 2) {
    if (rest == Tile + 1) {
      f(std::integral_constant<int, Tile - 1>(), begin);
      begin += Tile - 1;
      rest = 2;
    }
  }
  if constexpr (Tile > 5) {
    if (rest == 5) f(std::integral_constant<int, 5>(), begin);
  }
  if constexpr (Tile > 4) {
    if (rest == 4) f(std::integral_constant<int, 4>(), begin);
  }
  if constexpr (Tile > 3) {
    if (rest == 3) f(std::integral_constant<int, 3>(), begin);
  }
  if constexpr (Tile > 2) {
    if (rest == 2) f(std::integral_constant<int, 2>(), begin);
  }
  if (rest == 1) f(std::integral_constant<int, 1>(), begin);
}

// The same in tiles of `Tile` and single ones.
template <int Tile, class F>
inline void for_tiles_and_ones(int64_t begin, int64_t end, const F& f) {
  for (; begin + Tile <= end; begin += Tile) f(std::integral_constant<int, Tile>(), begin);
  for (; begin < end; ++begin) f(std::integral_constant<int, 1>(), begin);
}

// How far ahead of a tile's weights those of a later one are fetched into the second-level cache: by whole tiles, and by
// as many bytes as are read while the memory answers.
inline int64_t prefetch_distance(int64_t tile_bytes) {
  constexpr int64_t kWhileMemoryAnswers = 10'000;
  return tile_bytes * ((kWhileMemoryAnswers + tile_bytes - 1) / tile_bytes);
}

// Calls tile(outputs, rows, n, j) for tiles over all rows and outputs [n_begin, n_end); the two sizes are integral
// constants. Rows are taken a second-level cache full at a time, since they are read again for every tile of outputs,
// whereas weights are packed and may well come from memory for every such block.
template <class V, class Tile>
inline void for_product_tiles(const ProductRows& rows, int64_t n_begin, int64_t n_end, const Tile& tile) {
  if (rows.m == 1) {
    for_tiles_and_ones<V::kGemvOutputs>(
        n_begin, n_end, [&](auto outputs, int64_t n) { tile(outputs, std::integral_constant<int, 1>(), n, 0); });
    return;
  }
  constexpr int64_t kBlockFloats = 128 * 1024;
  const int64_t fitting = kBlockFloats / rows.x_stride / V::kTileRows * V::kTileRows;
  const int64_t block = fitting < V::kTileRows ? V::kTileRows : fitting;
  for (int64_t begin = 0; begin < rows.m; begin += block) {
    const int64_t end = begin + block < rows.m ? begin + block : rows.m;
    for_tiles_and_ones<V::kTileOutputs>(n_begin, n_end, [&](auto outputs, int64_t n) {
      for_tiles<V::kTileRows>(begin, end, [&](auto tile_rows, int64_t j) { tile(outputs, tile_rows, n, j); });
    });
  }
}

}  // namespace
}  // namespace lorikeet::kernels
