// The KV blocks of every rank, counted: the ranks hold the memory, the engine alone says who may write where.
//
// A block in no sequence's table is free, but what was computed in it stays until it is taken again. So the free blocks
// form one queue: blocks whose content nobody can find again at the front, cached ones behind them, the least recently
// used first. All operations are O(1) and allocate nothing.
#pragma once

#include <cstdint>
#include <span>
#include <vector>

#include "engine/ids.h"

namespace lorikeet::engine {

class BlockPool {
 public:
  // What becomes of the content of a block that nobody holds any more.
  enum class Content : uint8_t { worthless, cached };

  explicit BlockPool(int32_t num_blocks);

  // The free block that is missed least, with one reference. CHECKs that there is one. The caller forgets what the
  // prefix cache says of it.
  BlockId take();

  // One more holder; a free block becomes a held one.
  void add_reference(BlockId block);

  // One holder less; returns true when that was the last one and the block is free now.
  bool drop_reference(BlockId block, Content content);

  int32_t num_blocks() const { return static_cast<int32_t>(reference_counts_.size()); }
  int32_t num_free() const { return num_free_; }
  int32_t reference_count(BlockId block) const { return reference_counts_[static_cast<size_t>(block.value())]; }
  std::span<const int32_t> reference_counts() const { return reference_counts_; }

 private:
  // Links of the free queue, by block; index num_blocks is its head and tail.
  struct Links {
    int32_t before = 0, after = 0;
  };

  int32_t sentinel() const { return num_blocks(); }
  void insert_before(int32_t block, int32_t position);
  void unlink(int32_t block);

  std::vector<int32_t> reference_counts_;  // [num_blocks]
  std::vector<Links> links_;               // [num_blocks + 1]
  int32_t num_free_ = 0;
};

}  // namespace lorikeet::engine
