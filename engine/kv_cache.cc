#include "engine/kv_cache.h"

#include <glog/logging.h>

#include <algorithm>
#include <array>

namespace lorikeet::engine {
namespace {

// Blocks that will be taken so much later are asked of the memory now.
constexpr size_t kFarAhead = 8, kNearAhead = 4;
constexpr size_t kMaxPrefetched = 512;   // tokens: more would not stay near the core
constexpr size_t kLineTokens = 16;       // in a cache line
constexpr size_t kPublishedAtOnce = 32;  // blocks, for the same reason

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
  const auto block_size = static_cast<size_t>(block_size_);
  const std::span<const int32_t> tokens = sequence.tokens();
  const size_t num_known = std::min(static_cast<size_t>(sequence.num_computed()), tokens.size());
  const auto tokens_of = [&](size_t block) { return tokens.subspan(block * block_size, block_size); };
  auto next = static_cast<size_t>(table.num_published);
  // The memory is asked for a batch at a time: waiting for it block by block is most of what publishing costs.
  std::array<uint64_t, kPublishedAtOnce> hashes;
  for (const size_t end = num_known / block_size; next < end;) {
    const size_t count = std::min(end - next, hashes.size());
    uint64_t hash = table.published_prefix.hash;
    for (size_t i = 0; i < count; ++i) {
      hashes[i] = hash = prefixes_.hash_of(hash, tokens_of(next + i));
      prefixes_.prefetch_insert(table.blocks[next + i], hash);
    }
    for (size_t i = 0; i < count; ++i, ++next) {
      table.published_prefix = prefixes_.insert(table.published_prefix, tokens_of(next), table.blocks[next], hashes[i]);
    }
  }
  table.num_published = static_cast<int32_t>(next);
}

void KvCache::release(Sequence& sequence) {
  BlockTable& table = sequence.table();
  const std::span<const int32_t> tokens = sequence.tokens();
  const size_t num_hashed = share_prefixes_ ? std::min(tokens.size(), kMaxPrefetched) : 0;
  for (size_t i = static_cast<size_t>(table.num_published) * static_cast<size_t>(block_size_); i < num_hashed;
       i += kLineTokens) {
    __builtin_prefetch(&tokens[i]);
  }
  for (size_t i = table.blocks.size(), last = i - std::min(i, kPublishedAtOnce); i-- > last;) {
    pool_.prefetch(table.blocks[i]);
    prefixes_.prefetch_entry(table.blocks[i]);
  }
  publish(sequence);
  // Back to front, so that what builds on a prefix is evicted before it.
  for (size_t i = table.blocks.size(); i-- > 0;) {
    const BlockId block = table.blocks[i];
    if (i >= kPublishedAtOnce) {
      pool_.prefetch(table.blocks[i - kPublishedAtOnce]);
      prefixes_.prefetch_entry(table.blocks[i - kPublishedAtOnce]);
    }
    pool_.drop_reference(block, prefixes_.contains(block) ? BlockPool::Content::cached : BlockPool::Content::uncached);
  }
  table = {{}, sequence.root(), 0};
}

int32_t KvCache::resting_on(const Sequence& sequence, int32_t positions, PrefixId mark) const {
  const BlockTable& table = sequence.table();
  const int32_t num_full = std::min(table.num_published, positions / block_size_);
  for (int32_t i = 0; i < num_full; ++i) {
    if (prefixes_.is_later(table.blocks[static_cast<size_t>(i)], mark)) return i * block_size_;
  }
  return positions;
}

void KvCache::keep(Sequence& sequence, int32_t positions, PrefixId mark) {
  BlockTable& table = sequence.table();
  const bool was_wrong = positions < sequence.num_computed();
  const int32_t wanted = was_wrong ? positions / block_size_ : blocks_for(sequence.num_tokens(), block_size_);
  while (table.blocks.size() > static_cast<size_t>(wanted)) {
    const bool is_cached = prefixes_.contains(table.blocks.back());
    pool_.drop_reference(table.blocks.back(), is_cached ? BlockPool::Content::cached : BlockPool::Content::uncached);
    table.blocks.pop_back();
  }
  if (table.num_published == 0 || table.published_prefix.id <= mark) return;
  const auto block_size = static_cast<size_t>(block_size_);
  const std::span<const int32_t> tokens = sequence.tokens();
  Prefix prefix = sequence.root();
  int32_t num_found = 0;
  for (const int32_t most = std::min(table.num_published, positions / block_size_); num_found < most; ++num_found) {
    const auto hit = prefixes_.find(prefix, tokens.subspan(static_cast<size_t>(num_found) * block_size, block_size));
    if (!hit) break;
    prefix = hit->prefix;
  }
  // A block that is still cached stands behind a prefix that is not found any more. It cannot be published anew while
  // it is; so what follows goes on behind that prefix, unseen, as after forget_prefixes().
  table.num_published = std::min(table.num_published, static_cast<int32_t>(table.blocks.size()));
  for (int32_t i = num_found; i < table.num_published; ++i) {
    if (prefixes_.contains(table.blocks[static_cast<size_t>(i)])) return;
  }
  table.published_prefix = prefix;
  table.num_published = num_found;
}

void KvCache::prefetch_for_release(const Sequence& sequence) const {
  const BlockTable& table = sequence.table();
  __builtin_prefetch(table.blocks.data());
  const std::span<const int32_t> tokens = sequence.filed_tokens();
  const size_t end = share_prefixes_ ? std::min(tokens.size(), kMaxPrefetched) : 0;
  for (size_t i = static_cast<size_t>(table.num_published) * static_cast<size_t>(block_size_); i < end;
       i += kLineTokens) {
    __builtin_prefetch(&tokens[i]);
  }
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
