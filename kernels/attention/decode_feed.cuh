// What a block of the decode attention works on, and how its warps get their keys and values. Included by
// attention_decode_cuda.cu.
#pragma once

#include "kernels/attention/attention_decode_cuda.h"
#include "kernels/attention/attention_shared.cuh"
#include "kernels/cuda/device_math.cuh"

namespace lorikeet::kernels::attention {

inline constexpr int kWarps = 4;
inline constexpr int kThreads = kWarps * device::kWarpSize;
inline constexpr int kTile = kDecodeTile;
inline constexpr int kHeadTile = kDecodeHeadTile;
inline constexpr int kDepth = 2;      // tiles of a warp's ring
inline constexpr int kPassItems = 4;  // whose descriptions and queries are in shared memory at a time

// One item of work: a part of a pair (row, KV head, tile of query heads).
struct alignas(16) Item {
  int row, token, kv_head;
  int first_head, heads;  // query heads of the tile
  int pair;               // counts over all rows
  int part, parts;
  int context, tiles;  // of the row; no context, no work
  const int* block_table;

  static __device__ __forceinline__ Item of(const DecodeAttentionArgs& args, DecodePiece piece, int pair_of_row) {
    const int group = args.heads / args.cache.kv_heads;
    const int head_tiles = (group + kHeadTile - 1) / kHeadTile;
    Item it;
    it.row = piece.row;
    it.part = piece.part;
    it.parts = piece.parts;
    it.token = args.query_tokens[it.row];
    it.context = args.contexts[it.row];
    it.block_table = args.block_tables + args.table_begins[it.row];
    it.tiles = decode_tiles(it.context);
    it.pair = it.row * args.division.pairs_of_row() + pair_of_row;
    it.kv_head = pair_of_row / head_tiles;
    const int head_tile = pair_of_row - it.kv_head * head_tiles;
    it.first_head = it.kv_head * group + head_tile * kHeadTile;
    it.heads = min(kHeadTile, group - head_tile * kHeadTile);
    return it;
  }

  __device__ __forceinline__ bool has_newest() const { return part + 1 == parts; }
  // The segments of one warp, and the first of them.
  __device__ __forceinline__ int segments() const { return kDecodeSegments / kWarps / parts; }
  __device__ __forceinline__ int first_segment(int warp) const { return (part * kWarps + warp) * segments(); }
};

template <class T, int kHeadDim>
struct Shared {
  static constexpr int kTileBytes = kTile * kHeadDim * 2;
  static constexpr int kFours = kHeadDim / 4;                      // of a head's results
  alignas(128) unsigned char ring[kWarps][kDepth][2][kTileBytes];  // keys, values
  union {
    float warp_out[kWarps][kHeadTile][kHeadDim + 4];
    // From the warps of the whole cluster: this block's share of the pair's results, [warps][fours / blocks].
    float4 received[kDecodeSegments * kHeadTile * kFours / kMostDecodeParts];
  };
  float2 max_sum[kDecodeSegments][kHeadTile];  // of the cluster's warps, or of this block's
  alignas(16) T queries[kPassItems][kHeadTile][kHeadDim + 8];
  alignas(16) T newest[kPassItems][2][kHeadDim];  // key and value of the rows' last positions
  Item items[kPassItems];
  bool is_last;
};

// A warp's tiles in their order, over all of the block's items.
template <class T, class Kv, int kHeadDim>
class Feed {
 public:
  __device__ __forceinline__ Feed(const DecodeAttentionArgs& args, Shared<T, kHeadDim>& shared, int items)
      : args_(args), shared_(shared), items_(items) {
    begin();
    find();
  }

  // Requests the next tile's keys, or its values, which ends it. Without a next tile an empty group of copies.
  __device__ __forceinline__ void keys() {
    if (item_ < items_) fetch(static_cast<const Kv*>(args_.cache.keys), 0);
    device::commit_async_copies();
  }
  __device__ __forceinline__ void values() {
    if (item_ < items_) {
      fetch(static_cast<const Kv*>(args_.cache.values), 1);
      slot_ = (slot_ + 1) % kDepth;
      tile_++;
      find();
    }
    device::commit_async_copies();
  }

 private:
  static __device__ __forceinline__ int warp() { return static_cast<int>(threadIdx.x) / device::kWarpSize; }

  __device__ __forceinline__ void begin() {
    const Item& item = shared_.items[item_];
    const int first = item.first_segment(warp());
    tile_ = decode_segment_begin(item.tiles, first);
    end_ = decode_segment_begin(item.tiles, first + item.segments());
  }

  // Goes on to the item that the next tile is in, and asks for the blocks of its positions: 8 and 8, which lie
  // together. They are used when they have had time to come.
  __device__ __forceinline__ void find() {
    while (tile_ >= end_) {
      if (++item_ >= items_) return;
      begin();
    }
    const Item& item = shared_.items[item_];
    const int shift = 31 - __clz(args_.cache.block_size);
#pragma unroll
    for (int i = 0; i < 2; i++) {
      blocks_[i] = __ldg(item.block_table + (min(tile_ * kTile + 8 * i, item.context - 1) >> shift));
    }
  }

  __device__ __forceinline__ void fetch(const Kv* cache, int half) const {
    constexpr int kChunks = kHeadDim / kChunk;
    constexpr int kRows = device::kWarpSize / kChunks;  // that the warp copies at a time
    const int lane = threadIdx.x % device::kWarpSize;
    const uint32_t target = device::shared_address(shared_.ring[warp()][slot_][half]);
    const Item& item = shared_.items[item_];
    // With `rotate` the last position is not in the cache yet: it comes from shared memory.
    const int valid = item.context - (args_.rotate ? 1 : 0) - tile_ * kTile;
    const int block_size = args_.cache.block_size;
#pragma unroll
    for (int i = 0; i < 2; i++) {
      const int in_block = (tile_ * kTile + 8 * i) & (block_size - 1);
      const int first = (blocks_[i] * args_.cache.kv_heads + item.kv_head) * block_size + in_block;
      const Kv* source = cache + static_cast<size_t>(first + lane / kChunks) * kHeadDim + lane % kChunks * kChunk;
#pragma unroll
      for (int j = 0; j < 8; j += kRows) {
        const int row = 8 * i + j + lane / kChunks;
        fetch_chunk<T>(target + swizzled<kHeadDim>(row, lane % kChunks), source + j * kHeadDim, row < valid);
      }
    }
  }

  const DecodeAttentionArgs& args_;
  Shared<T, kHeadDim>& shared_;
  const int items_;
  int item_ = 0;
  int tile_, end_;
  int blocks_[2] = {0, 0};
  int slot_ = 0;
};

}  // namespace lorikeet::kernels::attention
