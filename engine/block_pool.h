// Counts the KV blocks of every rank. The ranks hold the memory; the engine alone decides who may write where.
//
// A block in no sequence's table is free, but what was computed in it stays until it is taken again. So the free blocks
// form one queue: blocks whose content nobody can find again at the front, the last freed first; cached ones behind
// them, the least recently used first. All operations are O(1) (amortised) and allocate nothing.
//
// With hundreds of thousands of blocks the pool is larger than a core's caches, and an operation's cost is waiting for
// memory. So the queue is two arrays without links, in which the entry of a block that is taken up again merely becomes
// void, and the blocks that will be taken next are known early enough to be prefetched.
#pragma once

#include <cstddef>
#include <cstdint>
#include <optional>
#include <span>

#include "engine/huge_pages.h"
#include "engine/ids.h"

namespace lorikeet::engine {

class BlockPool {
 public:
  // What becomes of the content of a block that nobody holds any more.
  enum class Content : uint8_t { uncached, cached };

  explicit BlockPool(int32_t num_blocks);

  // Takes the free block at the front of the queue, with one reference. CHECKs that there is one. The caller erases it from
  // the prefix cache.
  BlockId take();

  // The block that take() will probably give after `ahead` others: a hint for prefetching.
  std::optional<BlockId> upcoming(size_t ahead) const;
  void prefetch(BlockId block) const;

  // One more holder; a free block becomes a held one.
  void add_reference(BlockId block);

  // One holder less; returns true when that was the last one and the block is free now.
  bool drop_reference(BlockId block, Content content);

  int32_t num_blocks() const { return static_cast<int32_t>(reference_counts_.size()); }
  int32_t num_free() const { return num_free_; }
  int32_t reference_count(BlockId block) const { return reference_counts_[static_cast<size_t>(block.value())]; }
  std::span<const int32_t> reference_counts() const { return reference_counts_; }

 private:
  // Where a free block is queued: its index in uncached_, or its number in cached_ with kInCached.
  using Place = uint32_t;
  static constexpr Place kInCached = Place{1} << 31;

  bool is_at(int32_t block, Place place) const {
    const auto i = static_cast<size_t>(block);
    return reference_counts_[i] == 0 && places_[i] == place;
  }
  int32_t& cached(uint32_t number) { return cached_[number & (cached_.size() - 1)]; }
  int32_t cached(uint32_t number) const { return cached_[number & (cached_.size() - 1)]; }
  void queue(int32_t block, Content content);
  void drop_void_uncached();
  void drop_void_cached();

  HugeVector<int32_t> reference_counts_;  // [num_blocks]
  HugeVector<Place> places_;              // [num_blocks]: of free ones; an entry elsewhere that names them is void
  HugeVector<int32_t> uncached_;          // a stack
  HugeVector<int32_t> cached_;            // a ring [a power of two], numbered from cached_begin_ to cached_end_
  uint32_t cached_begin_ = 0, cached_end_ = 0;
  int32_t num_free_ = 0;
};

}  // namespace lorikeet::engine
