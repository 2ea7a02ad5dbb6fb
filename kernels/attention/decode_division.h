// How the decode attention's work is divided over the device.
#pragma once

#include <cstdint>
#include <span>

namespace lorikeet::kernels {

// A row's positions are cut into segments, each the work of one warp, whose results are joined pair by pair in a binary
// tree. Where a row is cut depends on its own length alone, so its result does not depend on the batch, nor on how many
// thread blocks share the row, nor on which of them finishes first.
inline constexpr int32_t kDecodeTile = 16;         // positions that a warp takes at a time
inline constexpr int32_t kDecodeSegments = 32;     // of a row; with fewer tiles than segments some are empty
inline constexpr int32_t kLongDecodeTiles = 1024;  // a row from here on has twice the segments
inline constexpr int32_t kDecodeHeadTile = 8;      // query heads of a pair at most: columns of the tensor-core step
inline constexpr int32_t kMostDecodeParts = 8;     // thread blocks that share a pair (row, KV head)
inline constexpr int32_t kMostSpreadParts = 16;    // likewise, of a long row where rows are few
inline constexpr int32_t kMostSpreadRows = 16;     // few enough

constexpr int32_t decode_tiles(int32_t context) {
  return (context + kDecodeTile - 1) / kDecodeTile;
}
constexpr int32_t decode_segments(int32_t tiles) {
  return tiles < kLongDecodeTiles ? kDecodeSegments : 2 * kDecodeSegments;
}
// The first tile of a segment.
constexpr int32_t decode_segment_begin(int32_t tiles, int32_t segment) {
  const int64_t before = static_cast<int64_t>(tiles) * segment / kDecodeSegments;
  return static_cast<int32_t>(tiles < kLongDecodeTiles ? before : before / 2);
}
static_assert(decode_segment_begin(1025, 63) == 1025 * 63 / 64);

// A part of a row that one thread block per KV head computes: 1, 2, 4 or 8 parts are a row, of a long row 2 to 16.
struct DecodePiece {
  int32_t row, part, parts;

  static constexpr DecodePiece of(int32_t packed) { return {packed >> 10, packed >> 5 & 31, packed & 31}; }
  constexpr int32_t packed() const { return row << 10 | part << 5 | parts; }
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
    const int64_t spread = int64_t{rows < kMostSpreadRows ? rows : kMostSpreadRows} * kMostSpreadParts;
    const int64_t others = int64_t{rows} * kMostDecodeParts;
    return spread < others ? others : spread;
  }
  static constexpr int64_t entries(int32_t rows) { return 1 + most_pieces(rows); }
  // Writes how many pieces the rows have, and behind that the packed pieces, row by row. Rows of an empty context have
  // pieces too. with_runs: several rows are of one sequence; what every block reads first says so (kDecodeRuns).
  void write(std::span<const int32_t> contexts, int32_t* pieces, bool with_runs = false) const;

  // Thread blocks that share every pair of `rows` rows where the device can let them exchange results.
  int32_t cluster(int32_t rows) const;
  // Parts that one of so many rows has at most: more than share a cluster only where multiprocessors would have no block.
  int32_t most_parts(int32_t rows) const;
  constexpr int32_t blocks() const { return blocks_; }  // that the device holds at a time
  constexpr int32_t pairs_of_row() const { return pairs_; }

 private:
  int32_t pairs_ = 1;
  int32_t blocks_ = 1;
};

}  // namespace lorikeet::kernels
