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

#include "engine/huge_pages.h"
#include "engine/ids.h"

namespace lorikeet::engine {

using PrefixId = Id<struct PrefixTag, uint64_t>;

// A token prefix of whole blocks under one adapter and salt.
struct Prefix {
  PrefixId id;        // 0: none
  uint64_t hash = 0;  // of the root and all tokens: the hashes of longer prefixes follow from it without a look-up

  auto operator<=>(const Prefix&) const = default;
};

class PrefixCache {
 public:
  PrefixCache(int32_t num_blocks, int32_t block_size);

  // The empty prefix under an adapter (by digest) and a salt. Each open_root() is followed by one close_root(); a root stays
  // after that while blocks are cached under it.
  Prefix open_root(const std::string& adapter, uint64_t salt);
  void close_root(const Prefix& root);

  struct Hit {
    BlockId block;
    Prefix prefix;
  };
  // The block that holds `tokens` [block_size] behind `parent`.
  std::optional<Hit> find(const Prefix& parent, std::span<const int32_t> tokens) const;

  // Records that `block` holds `tokens` behind `parent`. Returns the prefix that ends with this block. Where another block
  // already holds the same, returns that one's, and `block` is not recorded.
  Prefix insert(const Prefix& parent, std::span<const int32_t> tokens, BlockId block) {
    return insert(parent, tokens, block, hash_of(parent.hash, tokens));
  }
  // The same with hash_of(parent.hash, tokens) known.
  Prefix insert(const Prefix& parent, std::span<const int32_t> tokens, BlockId block, uint64_t hash);

  // Prefix::hash of `tokens` behind a prefix with hash `parent`.
  uint64_t hash_of(uint64_t parent, std::span<const int32_t> tokens) const;

  bool contains(BlockId block) const { return entry(block).id != PrefixId(); }

  // Forgets a block, if it is known, because its content is about to be overwritten.
  void erase(BlockId block);

  // Prefetches what find() and insert() will look at for the blocks of `tokens` behind `parent`.
  void prefetch_chain(const Prefix& parent, std::span<const int32_t> tokens) const;

  // Prefetches what insert() will touch.
  void prefetch_insert(BlockId block, uint64_t hash) const;

  // Prefetch what erase() and a later insert() will touch: first the one, a while later the other.
  void prefetch_entry(BlockId block) const;
  void prefetch_links(BlockId block) const;

  // The latest prefix so far; prefixes inserted from now on are later.
  PrefixId latest() const { return PrefixId(last_id_); }
  bool is_later(BlockId block, PrefixId than) const { return contains(block) && entry(block).id > than; }

  // Forgets every block that was inserted later. Walks over all blocks.
  void forget_later(PrefixId than);

  // Forgets every block: the ranks' memory is gone. Roots stay open.
  void clear();

  // The same, and there are `num_blocks` from now on.
  void resize(int32_t num_blocks);

  int32_t block_size() const { return block_size_; }
  size_t num_roots() const { return roots_.size(); }

 private:
  struct alignas(32) Entry {  // so that none lies on two cache lines
    PrefixId id;              // 0: the block is not cached
    PrefixId parent;
    uint64_t hash = 0;
  };
  // A place of an open hash table with linear probing. It holds half of the hash, so that most wrong entries are told apart
  // without reading them, which would cost a cache line each.
  struct Place {
    uint32_t hash = 0;   // the lower half of the entry's
    int32_t block = -1;  // -1: the place is free
  };
  struct Root {
    std::pair<std::string, uint64_t> key;
    int64_t users = 0;  // open_root calls not yet closed, plus cached blocks right behind the root
  };

  const Entry& entry(BlockId block) const { return entries_[static_cast<size_t>(block.value())]; }
  std::span<const int32_t> tokens_of(int32_t block) const;
  std::optional<Hit> find_hashed(uint64_t hash, PrefixId parent, std::span<const int32_t> tokens) const;
  size_t home_of(uint64_t hash) const { return static_cast<uint32_t>(hash) & (places_.size() - 1); }
  size_t next_place(size_t place) const { return (place + 1) & (places_.size() - 1); }
  void free_place(size_t place);
  void drop_root_user(PrefixId root);

  const int32_t block_size_;
  const uint64_t hash_seed_;
  uint64_t last_id_ = 0, last_root_id_ = 0;
  HugeVector<Entry> entries_;   // [num_blocks]
  HugeVector<int32_t> tokens_;  // [num_blocks, block_size]
  HugeVector<Place> places_;    // [a power of two, at least twice num_blocks]
  std::map<std::pair<std::string, uint64_t>, PrefixId> root_ids_;
  std::unordered_map<PrefixId, Root> roots_;
};

}  // namespace lorikeet::engine
