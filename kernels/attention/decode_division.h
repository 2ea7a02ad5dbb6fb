// How the decode attention's work is divided over the device.
#pragma once

#include <cstdint>
#include <span>

namespace lorikeet::kernels {

// A row's positions are cut into segments, each the work of one warp, whose results are joined pair by pair in a binary
// tree. Where a row is cut depends on its own length and on the model's heads alone, so its result does not depend on the
// batch, nor on how many thread blocks share the row, nor on which of them finishes first.
inline constexpr int32_t kDecodeTile = 16;      // positions that a warp takes at a time
inline constexpr int32_t kDecodeWarps = 4;      // of a thread block
inline constexpr int32_t kDecodeSegments = 32;  // of a row
// A row of fewer tiles than this has fewer segments, as the end of one costs as much as a tile where a warp has several, and
// fp8 is read two tiles at a time. With fewer tiles than segments some are empty.
inline constexpr int32_t kShortDecodeTiles = 64;
inline constexpr int32_t kShortDecodeSegments = 16;
inline constexpr int32_t kDecodeHeadTile = 8;   // query heads of a pair at most: columns of the tensor-core step
inline constexpr int32_t kMostDecodeParts = 8;  // thread blocks that share a pair (row, KV head), as a cluster
inline constexpr int32_t kMostSpreadParts =
    128;  // likewise, of a long row where rows are few; and those of the whole step then
// A row is long from so many tiles for each of its pairs on, 512 at the least and 1,024 at the most. The fewer pairs, the more segments may
// keep multiprocessors busy, but the end of one costs as much as one or two tiles where a warp has several: 8 KV heads
// take 64, 2 and 1 take 256 and 512, each of 8 tiles at least (bench/HISTORY.md, "Long rows over all multiprocessors").
inline constexpr int32_t kLongDecodeTilesOfPair = 128;
inline constexpr int32_t kDecodeSegmentTiles = 8;
inline constexpr int32_t kLongDecodeSegments = 64;   // of a long row at least,
inline constexpr int32_t kMostDecodeSegments = 512;  // and at most, over all of its pairs
inline constexpr int32_t kMostWarpSegments = 16;     // a warp has room for the results of so many

constexpr int32_t decode_tiles(int32_t context) {
  return (context + kDecodeTile - 1) / kDecodeTile;
}
// The first tile of a segment of a row that has `segments` (a power of two) of them.
constexpr int32_t decode_segment_begin(int32_t tiles, int32_t segments, int32_t segment) {
  return static_cast<int32_t>(static_cast<int64_t>(tiles) * segment / segments);
}

// A part of a row that one thread block per KV head computes: 1, 2, 4 or 8 parts are a row, of a long row up to 128.
struct DecodePiece {
  int32_t row, part, parts;

  static constexpr DecodePiece of(int32_t packed) { return {packed >> 16, packed >> 8 & 255, packed & 255}; }
  constexpr int32_t packed() const { return row << 16 | part << 8 | parts; }
};

inline constexpr int32_t kDecodeRuns = 1 << 30;  // beside the number of pieces

inline constexpr int32_t kDecodeBlocksPerMultiprocessor = 2;

// How a batch is divided over the device: it changes when a result is there, not its bits.
class DecodeDivision {
 public:
  DecodeDivision() = default;
  DecodeDivision(int32_t heads, int32_t kv_heads, int32_t multiprocessors);

  // Pieces that up to `rows` rows may have, and the entries that write() fills at most.
  static constexpr int64_t most_pieces(int32_t rows) {
    const int64_t others = int64_t{rows} * kMostDecodeParts;
    return others < kMostSpreadParts ? kMostSpreadParts : others;
  }
  static constexpr int64_t entries(int32_t rows) { return 1 + most_pieces(rows); }
  // Writes how many pieces the rows have, and behind that the packed pieces, row by row. Rows of an empty context have
  // pieces too. Where a cluster has kMostDecodeParts blocks, every row is the work of whole ones. with_runs: several rows
  // are of one sequence; what every block reads first says so (kDecodeRuns).
  void write(std::span<const int32_t> contexts, int32_t* pieces, bool with_runs = false) const;

  // Segments of a row of so many tiles: a power of two.
  constexpr int32_t segments(int32_t tiles) const {
    int32_t segments = tiles < kShortDecodeTiles ? kShortDecodeSegments : kDecodeSegments;
    if (tiles < long_tiles_) return segments;
    while (segments < most_segments_ && tiles >= 2 * segments * kDecodeSegmentTiles) segments *= 2;
    return segments;
  }
  // Thread blocks that share every pair of `rows` rows where the device can let them exchange results.
  int32_t cluster(int32_t rows) const;
  // Parts that one of so many rows has at most: more than a cluster where multiprocessors would have no block.
  int32_t most_parts(int32_t rows) const;
  constexpr int32_t blocks() const { return blocks_; }  // that the device holds at a time
  constexpr int32_t pairs_of_row() const { return pairs_; }
  // 2^32 / pairs, rounded up: the upper half of a product with it is a number up to 2^20 divided by several pairs.
  constexpr uint32_t pairs_inverse() const { return pairs_inverse_; }
  constexpr int32_t group() const { return group_; }            // query heads of a KV head
  constexpr int32_t head_tiles() const { return head_tiles_; }  // pairs of a KV head

 private:
  int32_t pairs_ = 1;
  uint32_t pairs_inverse_ = 0;
  int32_t group_ = 1;
  int32_t head_tiles_ = 1;
  int32_t blocks_ = 1;
  int32_t long_tiles_ = 1 << 30;
  int32_t most_segments_ = kDecodeSegments;
};

}  // namespace lorikeet::kernels
