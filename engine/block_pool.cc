#include "engine/block_pool.h"

#include <glog/logging.h>

namespace lorikeet::engine {

BlockPool::BlockPool(int32_t num_blocks) {
  CHECK_GT(num_blocks, 0);
  reference_counts_.resize(static_cast<size_t>(num_blocks), 0);
  links_.resize(static_cast<size_t>(num_blocks) + 1);
  links_[static_cast<size_t>(sentinel())] = {sentinel(), sentinel()};
  for (int32_t block = 0; block < num_blocks; ++block) insert_before(block, sentinel());
}

BlockId BlockPool::take() {
  CHECK_GT(num_free_, 0);
  const int32_t block = links_[static_cast<size_t>(sentinel())].after;
  unlink(block);
  reference_counts_[static_cast<size_t>(block)] = 1;
  return BlockId(block);
}

void BlockPool::add_reference(BlockId block) {
  CHECK_GE(block.value(), 0);
  CHECK_LT(block.value(), num_blocks());
  int32_t& count = reference_counts_[static_cast<size_t>(block.value())];
  if (count == 0) unlink(block.value());
  ++count;
}

bool BlockPool::drop_reference(BlockId block, Content content) {
  CHECK_GE(block.value(), 0);
  CHECK_LT(block.value(), num_blocks());
  int32_t& count = reference_counts_[static_cast<size_t>(block.value())];
  CHECK_GT(count, 0) << "block " << block.value() << " was released more often than taken";
  if (--count > 0) return false;
  insert_before(block.value(), content == Content::cached ? sentinel() : links_[static_cast<size_t>(sentinel())].after);
  return true;
}

void BlockPool::insert_before(int32_t block, int32_t position) {
  Links& at = links_[static_cast<size_t>(position)];
  links_[static_cast<size_t>(block)] = {at.before, position};
  links_[static_cast<size_t>(at.before)].after = block;
  at.before = block;
  ++num_free_;
}

void BlockPool::unlink(int32_t block) {
  const Links links = links_[static_cast<size_t>(block)];
  links_[static_cast<size_t>(links.before)].after = links.after;
  links_[static_cast<size_t>(links.after)].before = links.before;
  --num_free_;
}

}  // namespace lorikeet::engine
