#include "engine/block_pool.h"

#include <glog/logging.h>

#include <bit>

namespace lorikeet::engine {

BlockPool::BlockPool(int32_t num_blocks) {
  CHECK_GT(num_blocks, 0);
  const auto size = static_cast<size_t>(num_blocks);
  reference_counts_.resize(size, 0);
  places_.resize(size);
  // Twice the room for all, so that void entries are dropped seldom.
  uncached_.reserve(2 * size);
  cached_.resize(std::bit_ceil(2 * size));
  for (int32_t block = num_blocks - 1; block >= 0; --block) queue(block, Content::uncached);
}

BlockId BlockPool::take() {
  CHECK_GT(num_free_, 0);
  int32_t block = -1;
  Place place = 0;
  do {
    if (uncached_.empty()) {
      place = cached_begin_ | kInCached;
      block = cached(cached_begin_++);
    } else {
      block = uncached_.back();
      uncached_.pop_back();
      place = static_cast<Place>(uncached_.size());
    }
  } while (!is_at(block, place));
  --num_free_;
  reference_counts_[static_cast<size_t>(block)] = 1;
  return BlockId(block);
}

std::optional<BlockId> BlockPool::upcoming(size_t ahead) const {
  if (ahead < uncached_.size()) return BlockId(uncached_[uncached_.size() - 1 - ahead]);
  ahead -= uncached_.size();
  if (ahead >= cached_end_ - cached_begin_) return std::nullopt;
  return BlockId(cached(cached_begin_ + static_cast<uint32_t>(ahead)));
}

void BlockPool::prefetch(BlockId block) const {
  __builtin_prefetch(&reference_counts_[static_cast<size_t>(block.value())], 1);
  __builtin_prefetch(&places_[static_cast<size_t>(block.value())], 1);
}

void BlockPool::add_reference(BlockId block) {
  CHECK_GE(block.value(), 0);
  CHECK_LT(block.value(), num_blocks());
  int32_t& count = reference_counts_[static_cast<size_t>(block.value())];
  if (count == 0) --num_free_;  // its place in the queue is void
  ++count;
}

bool BlockPool::drop_reference(BlockId block, Content content) {
  CHECK_GE(block.value(), 0);
  CHECK_LT(block.value(), num_blocks());
  int32_t& count = reference_counts_[static_cast<size_t>(block.value())];
  CHECK_GT(count, 0) << "block " << block.value() << " was released more often than taken";
  if (--count > 0) return false;
  queue(block.value(), content);
  return true;
}

void BlockPool::queue(int32_t block, Content content) {
  ++num_free_;
  Place& place = places_[static_cast<size_t>(block)];
  if (content == Content::uncached) {
    if (uncached_.size() == 2 * reference_counts_.size()) drop_void_uncached();
    place = static_cast<Place>(uncached_.size());
    uncached_.push_back(block);
  } else {
    if (cached_end_ - cached_begin_ == cached_.size()) drop_void_cached();
    place = cached_end_ | kInCached;
    cached(cached_end_++) = block;
  }
}

void BlockPool::drop_void_uncached() {
  size_t kept = 0;
  for (size_t i = 0; i < uncached_.size(); ++i) {
    const int32_t block = uncached_[i];
    if (!is_at(block, static_cast<Place>(i))) continue;
    places_[static_cast<size_t>(block)] = static_cast<Place>(kept);
    uncached_[kept++] = block;
  }
  uncached_.resize(kept);
}

void BlockPool::drop_void_cached() {
  const uint32_t end = cached_end_;
  cached_end_ = cached_begin_;
  for (uint32_t number = cached_begin_; number != end; ++number) {
    const int32_t block = cached(number);
    if (!is_at(block, number | kInCached)) continue;
    places_[static_cast<size_t>(block)] = cached_end_ | kInCached;
    cached(cached_end_++) = block;
  }
}

}  // namespace lorikeet::engine
