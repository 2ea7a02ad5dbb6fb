// What a block of the decode attention works on, and how its warps get their keys and values. Included by
// attention_decode_cuda.cu.
#pragma once

#include <type_traits>

#include "kernels/attention/attention_decode_cuda.h"
#include "kernels/attention/attention_shared.cuh"
#include "kernels/cuda/device_math.cuh"

namespace lorikeet::kernels::attention {

inline constexpr int kWarps = kDecodeWarps;
inline constexpr int kThreads = kWarps * device::kWarpSize;
inline constexpr int kTile = kDecodeTile;
inline constexpr int kHeadTile = kDecodeHeadTile;
inline constexpr int kPassItems = 4;  // whose descriptions and queries are in shared memory at a time

// One item of work: a part of a pair (row, KV head, tile of query heads).
struct alignas(16) Item {
  int row, token, kv_head;
  int first_head, heads;  // query heads of the tile
  int pair;               // counts over all rows
  int part, parts;
  int context, tiles;  // of the row; no context, no work
  int row_segments;
  int block_segments;  // of the part: a power of two
  int segments;        // of one warp: a power of two; where there are fewer than warps, the last warps have none
  const int* block_table;

  static __device__ __forceinline__ Item of(const DecodeAttentionArgs& args, DecodePiece piece, int pair_of_row) {
    const int group = args.division.group();
    const int head_tiles = args.division.head_tiles();
    Item it;
    it.row = piece.row;
    it.part = piece.part;
    it.parts = piece.parts;
    it.token = args.query_tokens[it.row];
    it.context = args.contexts[it.row];
    it.block_table = args.block_tables + args.table_begins[it.row];
    it.tiles = decode_tiles(it.context);
    it.row_segments = args.division.segments(it.tiles);
    it.block_segments = it.row_segments / it.parts;
    it.segments = max(1, it.block_segments / kWarps);
    it.pair = it.row * args.division.pairs_of_row() + pair_of_row;
    it.kv_head = head_tiles == 1 ? pair_of_row : pair_of_row / head_tiles;
    const int head_tile = pair_of_row - it.kv_head * head_tiles;
    it.first_head = it.kv_head * group + head_tile * kHeadTile;
    it.heads = min(kHeadTile, group - head_tile * kHeadTile);
    return it;
  }

  __device__ __forceinline__ bool has_newest() const { return part + 1 == parts; }
  __device__ __forceinline__ int first_segment(int warp) const {
    return part * block_segments + min(warp * segments, block_segments);
  }
  // Behind `count` of a warp's segments.
  __device__ __forceinline__ int last_segment(int first, int count) const {
    return min(first + count, (part + 1) * block_segments);
  }
  // As decode_segment_begin.
  __device__ __forceinline__ int segment_begin(int segment) const {
    return static_cast<int>(static_cast<int64_t>(tiles) * segment >> (31 - __clz(row_segments)));
  }
};

// fp8 is kept as it is stored, and becomes T between shared memory and the tensor cores; other types become T on the way
// to shared memory.
template <class Kv>
inline constexpr bool kKeepsFp8 = sizeof(Kv) == 1;

// Tiles that a warp takes at a time: of fp8 as many bytes as of other types, so that waits, addresses, the search for the
// largest score and the factors of the sums are needed once for 32 positions. A segment of an odd number of tiles ends
// with one alone.
template <class Kv>
inline constexpr int kStepTiles = kKeepsFp8<Kv> ? 2 : 1;

// Where piece `piece` of 16 bytes of row `row` of a tile of fp8 lies, in bytes. Lanes read a row's pieces 2 t and 2 t + 1
// of keys, and piece g of rows 2 t, 2 t + 1 and so on of values: each over all banks.
template <int kHeadDim>
__device__ __forceinline__ uint32_t fp8_key_place(int row, int piece) {
  return static_cast<uint32_t>(row * kHeadDim + (kHeadDim == 128 ? piece ^ (row & 1) : piece) * 16);
}
template <int kHeadDim>
__device__ __forceinline__ uint32_t fp8_value_place(int row, int piece) {
  const int spread = row / 2 % 4 * (kHeadDim == 128 ? 2 : 1);
  return static_cast<uint32_t>(row * kHeadDim + (piece ^ spread) * 16);
}

template <class T, class Kv, int kHeadDim>
struct Shared {
  static constexpr bool kFp8 = kKeepsFp8<Kv>;
  using Kept = std::conditional_t<kFp8, Kv, T>;  // what keys and values are in shared memory
  static constexpr int kDepth = 2;               // steps of a warp's ring: a power of two
  static constexpr int kTileBytes = kTile * kHeadDim * static_cast<int>(sizeof(Kept));
  static constexpr int kPositions = kStepTiles<Kv> * kTile;                         // of a step
  static constexpr int kFours = kHeadDim / 4;                                       // of a head's results
  alignas(128) unsigned char ring[kWarps][kDepth][2][kStepTiles<Kv> * kTileBytes];  // keys, values
  float scales[kFp8 ? kWarps : 1][kDepth][2][kPositions];                           // of fp8
  union {
    float warp_out[kWarps][kHeadTile][kHeadDim + 4];
    struct {  // from the blocks of the cluster: this block's share of the pair's results, [blocks][fours / blocks]
      float4 received[kHeadTile * kFours];
      float2 received_max_sum[kHeadTile * kFours];
    };
  };
  float2 max_sum[kWarps][kHeadTile];
  uint64_t all_received;  // a barrier: all results of the cluster that are for this block
  alignas(16) T queries[kPassItems][kHeadTile][kHeadDim + 8];
  alignas(16) Kept newest[kPassItems][2][kHeadDim];  // key and value of the rows' last positions
  float newest_scales[kPassItems][2];
  Item items[kPassItems];
  bool is_last;
};

// A warp's steps in their order, over all of the block's items.
template <class T, class Kv, int kHeadDim>
class Feed {
 public:
  __device__ __forceinline__ Feed(const DecodeAttentionArgs& args, Shared<T, Kv, kHeadDim>& shared, int items)
      : args_(args), shared_(shared), items_(items) {
    begin();
    find();
  }

  // Requests the next step's keys, or its values, which ends it. Without a next step an empty group of copies.
  __device__ __forceinline__ void keys() {
    if (item_ < items_) {
      const Kv* const cache = static_cast<const Kv*>(args_.cache.keys);
      if constexpr (Memory::kFp8) {
        place();
        fetch_fp8<0>(cache, args_.cache.key_scales);
      } else {
        place_halves();
        fetch<0>(cache);
      }
    }
    device::commit_async_copies();
  }
  __device__ __forceinline__ void values() {
    if (item_ < items_) {
      const Kv* const cache = static_cast<const Kv*>(args_.cache.values);
      if constexpr (Memory::kFp8) {
        fetch_fp8<1>(cache, args_.cache.value_scales);
      } else {
        fetch<1>(cache);
      }
      slot_ = (slot_ + 1) & (Memory::kDepth - 1);
      tile_ += kStepTiles<Kv>;
      find();
    }
    device::commit_async_copies();
  }

 private:
  using Memory = Shared<T, Kv, kHeadDim>;
  static constexpr int kChunks = kHeadDim / kChunk;  // of a position that is not in fp8

  static __device__ __forceinline__ int warp() { return static_cast<int>(threadIdx.x) / device::kWarpSize; }

  __device__ __forceinline__ void begin() {
    const Item& item = shared_.items[item_];
    const int first = item.first_segment(warp());
    tile_ = item.segment_begin(first);
    if constexpr (Memory::kFp8) {
      segment_ = first;
      end_ = item.segment_begin(item.last_segment(first, 1));
      // With `rotate` the last position is not in the cache yet: it comes from shared memory.
      cached_ = item.context - (args_.rotate ? 1 : 0);
      kv_head_ = item.kv_head;
    } else {
      end_ = item.segment_begin(item.last_segment(first, item.segments));
    }
  }

  // Goes on to the item that the next step is in, and asks for the blocks of its positions: 8 and 8, which lie
  // together, or of fp8 every lane that of its position. They are used when they have had time to come.
  __device__ __forceinline__ void find() {
    while (tile_ >= end_) {
      if constexpr (Memory::kFp8) {  // no step goes over the end of a segment
        const Item& item = shared_.items[item_];
        if (++segment_ < item.first_segment(warp()) + item.segments) {
          tile_ = end_;
          end_ = item.segment_begin(segment_ + 1);
          continue;
        }
      }
      if (++item_ >= items_) return;
      begin();
    }
    const Item& item = shared_.items[item_];
    const int shift = 31 - __clz(args_.cache.block_size);
    if constexpr (Memory::kFp8) {
      const int position = tile_ * kTile + static_cast<int>(threadIdx.x) % device::kWarpSize;
      blocks_[0] = __ldg(item.block_table + (min(position, max(cached_ - 1, 0)) >> shift));
    } else {
#pragma unroll
      for (int i = 0; i < 2; i++) {
        blocks_[i] = __ldg(item.block_table + (min(tile_ * kTile + 8 * i, item.context - 1) >> shift));
      }
    }
  }

  // Where in the cache's order of heads the lane's position of the step is, and how many of its positions are to be read.
  __device__ __forceinline__ void place() {
    const int first = tile_ * kTile;
    const int in_block = (first + static_cast<int>(threadIdx.x) % device::kWarpSize) & (args_.cache.block_size - 1);
    place_ = (blocks_[0] * args_.cache.kv_heads + kv_head_) * args_.cache.block_size + in_block;
    valid_ = min(cached_, end_ * kTile) - first;
  }

  // fp8. kHalf 0: keys, 1: values.
  template <int kHalf>
  __device__ __forceinline__ void fetch_fp8(const Kv* cache, const float* scales) const {
    static_assert(Memory::kPositions == device::kWarpSize);
    constexpr int kChunks = kHeadDim / 16;
    constexpr int kRows = device::kWarpSize / kChunks;  // that the warp copies at a time
    const int lane = threadIdx.x % device::kWarpSize;
    const uint32_t target = device::shared_address(shared_.ring[warp()][slot_][kHalf]);
    const Kv* const piece = cache + lane % kChunks * 16;
#pragma unroll
    for (int first = 0; first < Memory::kPositions; first += 8) {  // 8 lie together
      const int64_t of_row = __shfl_sync(device::kFullWarp, place_, first + lane / kChunks);
      const Kv* const source = piece + of_row * kHeadDim;
#pragma unroll
      for (int j = 0; j < 8; j += kRows) {
        const int row = first + j + lane / kChunks;
        const uint32_t offset =
            kHalf == 0 ? fp8_key_place<kHeadDim>(row, lane % kChunks) : fp8_value_place<kHeadDim>(row, lane % kChunks);
        device::copy_async_16(target + offset, source + j * kHeadDim, row < valid_);
      }
    }
    device::copy_async_4(device::shared_address(&shared_.scales[warp()][slot_][kHalf][lane]), scales + place_,
                         lane < valid_);
  }

  // Of other types: where in the cache the lane's first rows of the step's halves are, in elements, and how many of its
  // positions are to be read. With `rotate` the last one is not in the cache yet: it comes from shared memory.
  __device__ __forceinline__ void place_halves() {
    const Item& item = shared_.items[item_];
    const int lane = threadIdx.x % device::kWarpSize;
    const int block_size = args_.cache.block_size;
    valid_ = item.context - (args_.rotate ? 1 : 0) - tile_ * kTile;
#pragma unroll
    for (int i = 0; i < 2; i++) {
      const int in_block = (tile_ * kTile + 8 * i) & (block_size - 1);
      const int first = (blocks_[i] * args_.cache.kv_heads + item.kv_head) * block_size + in_block;
      half_[i] = static_cast<int64_t>(first + lane / kChunks) * kHeadDim + lane % kChunks * kChunk;
    }
  }

  // kHalf 0: keys, 1: values.
  template <int kHalf>
  __device__ __forceinline__ void fetch(const Kv* cache) const {
    constexpr int kRows = device::kWarpSize / kChunks;  // that the warp copies at a time
    const int lane = threadIdx.x % device::kWarpSize;
    const uint32_t target = device::shared_address(shared_.ring[warp()][slot_][kHalf]);
    const auto each = [&](const auto& copy) {
#pragma unroll
      for (int i = 0; i < 2; i++) {
#pragma unroll
        for (int j = 0; j < 8; j += kRows) {
          const int row = 8 * i + j + lane / kChunks;
          copy(target + swizzled<kHeadDim>(row, lane % kChunks), cache + half_[i] + j * kHeadDim, row);
        }
      }
    };
    if (__is_same(T, Kv) && valid_ >= kTile) {  // all but a row's last: no questions, as each is an instruction
      each([](uint32_t to, const Kv* from, int) { device::copy_async_16(to, from); });
    } else {
      each([&](uint32_t to, const Kv* from, int row) { fetch_chunk<T>(to, from, row < valid_); });
    }
  }

  const DecodeAttentionArgs& args_;
  Memory& shared_;
  const int items_;
  int item_ = 0;
  int tile_, end_;  // of the item, of fp8 of the segment
  int blocks_[2] = {0, 0};
  int slot_ = 0;
  // Of fp8:
  int segment_ = 0;
  int cached_ = 0, kv_head_ = 0;  // of the item; positions that are read from the cache
  int place_ = 0;
  // Of the step whose keys were requested last:
  int valid_ = 0;
  int64_t half_[2] = {0, 0};  // not of fp8
};

}  // namespace lorikeet::kernels::attention
