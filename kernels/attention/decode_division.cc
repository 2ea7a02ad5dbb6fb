#include "kernels/attention/decode_division.h"

#include <algorithm>

namespace lorikeet::kernels {
namespace {

// What a piece costs beside its tiles, in the time of a tile: its start, and the exchange of results where a pair has
// several.
constexpr double kPieceCost = 4;
constexpr double kExchangeCost = 6;

}  // namespace

DecodeDivision::DecodeDivision(int32_t heads, int32_t kv_heads, int32_t multiprocessors)
    : pairs_(kv_heads * ((heads / kv_heads + kDecodeHeadTile - 1) / kDecodeHeadTile)),
      pairs_inverse_(static_cast<uint32_t>((uint64_t{1} << 32) / static_cast<uint32_t>(pairs_)) + 1),
      group_(heads / kv_heads),
      head_tiles_(pairs_ / kv_heads),
      blocks_(multiprocessors * kDecodeBlocksPerMultiprocessor),
      long_tiles_(kLongDecodeTilesOfPair * std::min(pairs_, kMostDecodeParts)),
      most_segments_(kLongDecodeSegments) {
  while (2 * most_segments_ * pairs_ <= kMostDecodeSegments) most_segments_ *= 2;
}

int32_t DecodeDivision::cluster(int32_t rows) const {
  // Large clusters do not fill the groups of multiprocessors that they must lie in: a few would wait for all others.
  const auto fit = [&](int32_t blocks) {
    return int64_t{rows} * pairs_ * blocks <= (blocks > 2 ? blocks_ * 3 / 4 : blocks_);
  };
  int32_t blocks = kMostDecodeParts;
  while (blocks > 1 && !fit(blocks)) blocks /= 2;
  return blocks;
}

int32_t DecodeDivision::most_parts(int32_t rows) const {
  const int64_t blocks = std::min(blocks_ / kDecodeBlocksPerMultiprocessor, kMostSpreadParts);
  int32_t parts = kMostDecodeParts;
  while (int64_t{rows} * pairs_ * 2 * parts <= blocks) parts *= 2;
  return std::min(parts, std::max(most_segments_ / kDecodeWarps, kMostDecodeParts));
}

void DecodeDivision::write(std::span<const int32_t> contexts, int32_t* pieces, bool with_runs) const {
  const auto rows = static_cast<int32_t>(contexts.size());
  double sum = 0;
  int32_t longest = 0;
  int32_t used = 0;
  for (const int32_t context : contexts) {
    sum += decode_tiles(context);
    longest = std::max(longest, decode_tiles(context));
    used += context > 0 ? 1 : 0;
  }
  const double mean = sum / std::max(used, 1);
  const double share = sum * pairs_ / blocks_;  // of a block

  // Parts of a row of mean length: those with which the fullest block is done first.
  int32_t parts = cluster(rows);
  double limit = 2 * share + 64;  // tiles of a piece that leave the blocks busy alike
  if (parts == 1 || (parts < kMostDecodeParts && longest > limit * parts)) {
    double best = 0;
    for (int32_t p = 1; p <= kMostDecodeParts; p *= 2) {
      const int64_t rounds = (int64_t{used} * pairs_ * p + blocks_ - 1) / blocks_;
      const double cost = static_cast<double>(rounds) * (mean / p + kPieceCost + (p > 1 ? kExchangeCost : 0));
      if (p > 1 && cost >= best) continue;
      best = cost;
      parts = p;
    }
    limit = 1.5 * std::max(share, mean / parts) + 8;
  } else {
    limit = longest;  // all rows alike
  }
  int32_t count = 0;
  for (int32_t row = 0; row < rows; ++row) {
    int32_t own = parts;
    const int32_t tiles = decode_tiles(contexts[static_cast<size_t>(row)]);
    while (own < kMostDecodeParts && tiles > limit * own) own *= 2;
    const int32_t segments = this->segments(tiles);
    if (segments > kDecodeSegments) {
      // Where some multiprocessors would have no block, more of them than a cluster has are worth their way through memory.
      own = parts == kMostDecodeParts ? std::min(most_parts(rows), segments / kDecodeWarps)
                                      : std::max({own, 2, segments / (kDecodeWarps * kMostWarpSegments)});
    }
    for (int32_t part = 0; part < own; ++part) pieces[1 + count++] = DecodePiece{row, part, own}.packed();
  }
  pieces[0] = count | (with_runs ? kDecodeRuns : 0);
}

}  // namespace lorikeet::kernels
