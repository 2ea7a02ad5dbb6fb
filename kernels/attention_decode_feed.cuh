// What a block of the decode attention works on, and how its warps get their keys and values. Included by
// attention_decode_cuda.cu.
#pragma once

#include "kernels/attention_decode_cuda.h"
#include "kernels/attention_shared.cuh"
#include "kernels/device_math.cuh"

namespace lorikeet::kernels::attention {

inline constexpr int kWarps = 4;
inline constexpr int kThreads = kWarps * device::kWarpSize;
inline constexpr int kTile = 16;     // positions of one warp's step
inline constexpr int kDepth = 2;     // tiles of a warp's ring
inline constexpr int kHeadTile = 8;  // query heads of one thread block: columns of the tensor-core step
inline constexpr int kMostSplits = 64;
inline constexpr int kPassItems = 64;  // whose descriptions are in shared memory at a time

// One item of work: a split of a pair (row, KV head, tile of query heads). A pair's splits are neighbours.
struct alignas(16) Item {
  int row, token, kv_head;
  int first_head, heads;  // query heads of the tile
  int pair;               // counts over all rows
  int split, splits;      // of the row
  int begin, end;         // positions
  int context;
  int first_split;  // of the row, counted over all rows
  const int* block_table;

  // `item` exists.
  static __device__ __forceinline__ Item of(const DecodeAttentionArgs& args, const int* split_begins,
                                            unsigned head_tiles, unsigned item) {
    const unsigned pairs = args.cache.kv_heads * head_tiles;
    const int group = args.heads / args.cache.kv_heads;
    const int split_of_all = static_cast<int>(item / pairs);  // of the row's splits it lies among
    Item it;
    it.row = 0;
    for (int low = 0, high = args.rows; high - low > 1;) {
      const int middle = (low + high) / 2;
      if (split_begins[middle] <= split_of_all) {
        it.row = low = middle;
      } else {
        high = middle;
      }
    }
    it.token = args.query_tokens[it.row];
    it.context = args.contexts[it.row];
    it.block_table = args.block_tables + args.table_begins[it.row];
    it.first_split = split_begins[it.row];
    it.splits = split_begins[it.row + 1] - it.first_split;
    const unsigned in_row = item - it.first_split * pairs;
    const unsigned pair = in_row / static_cast<unsigned>(it.splits);
    it.split = static_cast<int>(in_row - pair * it.splits);
    it.pair = static_cast<int>(it.row * pairs + pair);
    it.kv_head = static_cast<int>(pair / head_tiles);
    const int head_tile = static_cast<int>(pair - it.kv_head * head_tiles);
    it.first_head = it.kv_head * group + head_tile * kHeadTile;
    it.heads = min(kHeadTile, group - head_tile * kHeadTile);
    const int length = args.policy.split_length(it.context);
    it.begin = it.split * length;
    it.end = min(it.begin + length, it.context);
    return it;
  }
};

template <class T, int kHeadDim>
struct Shared {
  static constexpr int kTileBytes = kTile * kHeadDim * 2;
  alignas(128) unsigned char ring[kWarps][kDepth][2][kTileBytes];  // keys, values
  float warp_out[kWarps][kHeadTile][kHeadDim + 4];
  float2 warp_max_sum[kWarps][kHeadTile];
  float2 joined_max_sum[2][kHeadTile];
  union {
    float4 joined[kHeadTile * kHeadDim / 4];  // of the pair's splits, where all of them are this block's
    float2 factors[kMostSplits][kHeadTile];   // otherwise
  };
  alignas(16) T queries[kHeadTile][kHeadDim + 8];
  Item items[kPassItems];
  int split_begins[kMaxDecodeRows + 1];
  bool is_last;
};

// A warp's tiles in their order, over all of the block's items.
template <class T, class Kv, int kHeadDim>
class Feed {
 public:
  __device__ __forceinline__ Feed(const DecodeAttentionArgs& args, Shared<T, kHeadDim>& shared, int items)
      : args_(args), shared_(shared), items_(items), tile_(shared.items[0].begin + warp() * kTile) {
    find();
  }

  __device__ __forceinline__ bool more() const { return item_ < items_; }
  // Whether the next tile has its row's last position.
  __device__ __forceinline__ bool newest() const { return tile_ + kTile >= shared_.items[item_].context; }

  // Requests the next tile's keys, or its values, which ends it. Without a next tile an empty group of copies.
  __device__ __forceinline__ void keys() {
    if (more()) fetch(static_cast<const Kv*>(args_.cache.keys), 0);
    device::commit_async_copies();
  }
  __device__ __forceinline__ void values() {
    if (more()) {
      fetch(static_cast<const Kv*>(args_.cache.values), 1);
      slot_ = (slot_ + 1) % kDepth;
      tile_ += kWarps * kTile;
      find();
    }
    device::commit_async_copies();
  }

 private:
  static __device__ __forceinline__ int warp() { return static_cast<int>(threadIdx.x) / device::kWarpSize; }

  // Goes on to the item that the next tile is in, and asks for the blocks of its positions: 8 and 8, which lie
  // together. They are used when they have had time to come.
  __device__ __forceinline__ void find() {
    while (tile_ >= shared_.items[item_].end) {
      if (++item_ >= items_) return;
      tile_ = shared_.items[item_].begin + warp() * kTile;
    }
    const Item& item = shared_.items[item_];
    const int shift = 31 - __clz(args_.cache.block_size);
#pragma unroll
    for (int i = 0; i < 2; i++) blocks_[i] = __ldg(item.block_table + (min(tile_ + 8 * i, item.end - 1) >> shift));
  }

  __device__ __forceinline__ void fetch(const Kv* cache, int half) const {
    constexpr int kChunks = kHeadDim / kChunk;
    constexpr int kRows = device::kWarpSize / kChunks;  // that the warp copies at a time
    const int lane = threadIdx.x % device::kWarpSize;
    const uint32_t target = device::shared_address(shared_.ring[warp()][slot_][half]);
    const Item& item = shared_.items[item_];
    const int valid = item.end - tile_;  // positions
    const int block_size = args_.cache.block_size;
#pragma unroll
    for (int i = 0; i < 2; i++) {
      const int in_block = (tile_ + 8 * i) & (block_size - 1);
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
  int tile_;
  int blocks_[2] = {0, 0};
  int slot_ = 0;
};

}  // namespace lorikeet::kernels::attention
