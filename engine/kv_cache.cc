#include "engine/kv_cache.h"

#include <glog/logging.h>

#include <algorithm>

namespace lorikeet::engine {

KvCache::KvCache(int32_t num_blocks, int32_t block_size, bool share_prefixes)
    : share_prefixes_(share_prefixes), block_size_(block_size), pool_(num_blocks), prefixes_(num_blocks, block_size) {}

template <class Visitor>
void KvCache::visit_prefix(const Sequence& sequence, Visitor&& visit) const {
  if (!share_prefixes_ || sequence.wants_prompt_logprobs()) return;
  const auto block_size = static_cast<size_t>(block_size_);
  const std::span<const int32_t> tokens = sequence.tokens();
  PrefixId prefix = sequence.root();
  for (size_t end = block_size; end < tokens.size(); end += block_size) {
    const auto hit = prefixes_.find(prefix, tokens.subspan(end - block_size, block_size));
    if (!hit) return;
    prefix = hit->prefix;
    visit(*hit);
  }
}

PrefixHits KvCache::prefix_hits(const Sequence& sequence) const {
  PrefixHits hits;
  visit_prefix(sequence, [&](const PrefixCache::Hit& hit) {
    ++hits.num_blocks;
    if (pool_.reference_count(hit.block) == 0) ++hits.num_free;
  });
  return hits;
}

int32_t KvCache::share_prefix(Sequence& sequence) {
  CHECK(sequence.table.empty());
  visit_prefix(sequence, [&](const PrefixCache::Hit& hit) {
    pool_.add_reference(hit.block);
    sequence.table.push_back(hit.block);
    sequence.published_prefix = hit.prefix;
    ++sequence.num_blocks_published;
  });
  return sequence.num_blocks_published * block_size_;
}

void KvCache::extend(Sequence& sequence, int32_t positions) {
  const auto wanted = static_cast<size_t>(blocks_for(positions, block_size_));
  while (sequence.table.size() < wanted) {
    const BlockId block = pool_.take();
    prefixes_.erase(block);
    sequence.table.push_back(block);
  }
}

void KvCache::publish(Sequence& sequence) {
  if (!share_prefixes_) return;
  const auto block_size = static_cast<size_t>(block_size_);
  const std::span<const int32_t> tokens = sequence.tokens();
  const size_t num_full = std::min(static_cast<size_t>(sequence.num_computed()), tokens.size()) / block_size;
  for (auto i = static_cast<size_t>(sequence.num_blocks_published); i < num_full; ++i) {
    sequence.published_prefix =
        prefixes_.insert(sequence.published_prefix, tokens.subspan(i * block_size, block_size), sequence.table[i]);
    ++sequence.num_blocks_published;
  }
}

void KvCache::release(Sequence& sequence) {
  publish(sequence);
  // Back to front, so that what builds on a prefix is evicted before it.
  for (size_t i = sequence.table.size(); i-- > 0;) {
    const BlockId block = sequence.table[i];
    pool_.drop_reference(block, prefixes_.contains(block) ? BlockPool::Content::cached : BlockPool::Content::worthless);
  }
  sequence.table.clear();
  sequence.num_blocks_published = 0;
  sequence.published_prefix = sequence.root();
}

void KvCache::clear() {
  CHECK_EQ(pool_.num_free(), pool_.num_blocks());
  prefixes_.clear();
}

}  // namespace lorikeet::engine
