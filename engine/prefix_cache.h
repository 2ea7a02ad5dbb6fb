// Which block holds the keys and values of which token prefix.
//
// The identity of a full block's content is exact, not a digest: it is the entry of the block before it (or the root of
// its adapter and salt) plus the block's own tokens, compared in full. The hash only finds the place to compare, so a
// collision costs a look and can never serve the wrong KV. Entries are never reused: a chain whose middle was evicted
// cannot be entered again behind the gap.
#pragma once

#include <cstdint>
#include <map>
#include <optional>
#include <span>
#include <string>
#include <unordered_map>
#include <utility>
#include <vector>

#include "engine/ids.h"

namespace lorikeet::engine {

// A token prefix of whole blocks under one adapter and salt; 0: none.
using PrefixId = Id<struct PrefixTag, uint64_t>;

class PrefixCache {
 public:
  PrefixCache(int32_t num_blocks, int32_t block_size);

  // The empty prefix under an adapter (by digest) and a salt. Each open_root is paid back by one close_root; a root
  // outlives that while blocks are cached under it.
  PrefixId open_root(const std::string& adapter, uint64_t salt);
  void close_root(PrefixId root);

  struct Hit {
    BlockId block;
    PrefixId prefix;
  };
  // The block that holds `tokens` [block_size] behind `parent`.
  std::optional<Hit> find(PrefixId parent, std::span<const int32_t> tokens) const;

  // Says that `block` holds `tokens` behind `parent`. Returns the prefix that ends with this block; where another block
  // already holds the same, that one's, and `block` stays unknown.
  PrefixId insert(PrefixId parent, std::span<const int32_t> tokens, BlockId block);

  bool contains(BlockId block) const { return entry(block).id != PrefixId(); }

  // Forgets a block, if it is known, because its content is about to be overwritten.
  void erase(BlockId block);

  // Forgets every block: the ranks' memory is gone. Roots stay open.
  void clear();

  int32_t block_size() const { return block_size_; }
  size_t num_roots() const { return roots_.size(); }

 private:
  struct Entry {
    PrefixId id;  // 0: the block is not cached
    PrefixId parent;
    uint64_t hash = 0;
    int32_t next = -1;  // in the bucket's chain
  };
  struct Root {
    std::pair<std::string, uint64_t> key;
    int64_t users = 0;  // open_root calls not yet closed, plus cached blocks right behind the root
  };

  const Entry& entry(BlockId block) const { return entries_[static_cast<size_t>(block.value())]; }
  std::span<const int32_t> tokens_of(int32_t block) const;
  uint64_t hash_of(PrefixId parent, std::span<const int32_t> tokens) const;
  std::optional<Hit> find_hashed(uint64_t hash, PrefixId parent, std::span<const int32_t> tokens) const;
  void drop_root_user(PrefixId root);

  const int32_t block_size_;
  const uint64_t hash_seed_;
  uint64_t last_id_ = 0, last_root_id_ = 0;
  std::vector<Entry> entries_;    // [num_blocks]
  std::vector<int32_t> tokens_;   // [num_blocks, block_size]
  std::vector<int32_t> buckets_;  // [a power of two]: first block of the chain, or -1
  std::map<std::pair<std::string, uint64_t>, PrefixId> root_ids_;
  std::unordered_map<PrefixId, Root> roots_;
};

}  // namespace lorikeet::engine
