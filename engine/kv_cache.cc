#include "engine/kv_cache.h"

#include <glog/logging.h>

#include <algorithm>

namespace lorikeet::engine {
namespace {

// Blocks that will be taken so much later are asked of the memory now.
constexpr size_t kFarAhead = 8, kNearAhead = 4;
constexpr size_t kMaxPrefetched = 512;  // tokens: more would not stay near the core

}  // namespace

KvCache::KvCache(int32_t num_blocks, int32_t block_size, bool share_prefixes)
    : share_prefixes_(share_prefixes), block_size_(block_size), pool_(num_blocks), prefixes_(num_blocks, block_size) {}

template <class Visitor>
void KvCache::visit_prefix(const Sequence& sequence, Visitor&& visit) const {
  if (!share_prefixes_ || sequence.wants_prompt_logprobs()) return;
  const auto block_size = static_cast<size_t>(block_size_);
  const std::span<const int32_t> tokens = sequence.tokens();
  Prefix prefix = sequence.root();
  for (size_t end = block_size; end < tokens.size(); end += block_size) {
    const auto hit = prefixes_.find(prefix, tokens.subspan(end - block_size, block_size));
    if (!hit) return;
    prefix = hit->prefix;
    visit(*hit);
  }
}

PrefixHits KvCache::prefix_hits(const Sequence& sequence) const {
  PrefixHits hits;
  // What is not found now is published soon, in the same buckets.
  const std::span<const int32_t> tokens = sequence.tokens();
  if (share_prefixes_) prefixes_.prefetch_chain(sequence.root(), tokens.first(std::min(tokens.size(), kMaxPrefetched)));
  visit_prefix(sequence, [&](const PrefixCache::Hit& hit) {
    ++hits.num_blocks;
    if (pool_.reference_count(hit.block) == 0) ++hits.num_free;
  });
  return hits;
}

int32_t KvCache::share_prefix(Sequence& sequence) {
  BlockTable& table = sequence.table();
  CHECK(table.blocks.empty());
  visit_prefix(sequence, [&](const PrefixCache::Hit& hit) {
    pool_.add_reference(hit.block);
    table.blocks.push_back(hit.block);
    table.published_prefix = hit.prefix;
    ++table.num_published;
  });
  return table.num_published * block_size_;
}

void KvCache::extend(Sequence& sequence, int32_t positions) {
  std::vector<BlockId>& blocks = sequence.table().blocks;
  const auto wanted = static_cast<size_t>(blocks_for(positions, block_size_));
  while (blocks.size() < wanted) {
    if (const auto next = pool_.upcoming(kFarAhead)) {
      pool_.prefetch(*next);
      prefixes_.prefetch_entry(*next);
    }
    if (const auto next = pool_.upcoming(kNearAhead)) prefixes_.prefetch_links(*next);
    blocks.push_back(pool_.take());
    prefixes_.erase(blocks.back());
  }
}

void KvCache::publish(Sequence& sequence) {
  if (!share_prefixes_) return;
  BlockTable& table = sequence.table();
  const int32_t num_known = std::min(sequence.num_computed(), static_cast<int32_t>(sequence.tokens().size()));
  while ((table.num_published + 1) * block_size_ <= num_known) {
    const auto i = static_cast<size_t>(table.num_published);
    const auto block_size = static_cast<size_t>(block_size_);
    const auto tokens = std::span(sequence.tokens()).subspan(i * block_size, block_size);
    table.published_prefix = prefixes_.insert(table.published_prefix, tokens, table.blocks[i]);
    ++table.num_published;
  }
}

void KvCache::release(Sequence& sequence) {
  publish(sequence);
  BlockTable& table = sequence.table();
  // Back to front, so that what builds on a prefix is evicted before it.
  for (size_t i = table.blocks.size(); i-- > 0;) {
    const BlockId block = table.blocks[i];
    pool_.drop_reference(block, prefixes_.contains(block) ? BlockPool::Content::cached : BlockPool::Content::worthless);
  }
  table = {{}, sequence.root(), 0};
}

void KvCache::clear() {
  CHECK_EQ(pool_.num_free(), pool_.num_blocks());
  prefixes_.clear();
}

void KvCache::resize(int32_t num_blocks) {
  clear();
  pool_ = BlockPool(num_blocks);
  prefixes_.resize(num_blocks);
}

}  // namespace lorikeet::engine
