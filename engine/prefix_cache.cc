#include "engine/prefix_cache.h"

#include <glog/logging.h>

#include <algorithm>
#include <bit>
#include <random>

namespace lorikeet::engine {
namespace {

// Drawn anew in each process so that no client can prepare prompts that fall into one bucket. It decides where an entry
// is looked for, never what is found, so plans do not depend on it.
uint64_t random_seed() {
  std::random_device device;
  return uint64_t{device()} << 32 | device();
}

uint64_t mix(uint64_t a, uint64_t b) {
  const auto product = static_cast<unsigned __int128>(a) * b;
  return static_cast<uint64_t>(product) ^ static_cast<uint64_t>(product >> 64);
}

// Roots are told from blocks' prefixes by their number alone, since that is asked for every block taken or published.
constexpr uint64_t kRootBit = uint64_t{1} << 63;

bool is_root(PrefixId prefix) {
  return (prefix.value() & kRootBit) != 0;
}

}  // namespace

PrefixCache::PrefixCache(int32_t num_blocks, int32_t block_size) : block_size_(block_size), hash_seed_(random_seed()) {
  CHECK_GT(num_blocks, 0);
  CHECK_GT(block_size, 0);
  entries_.resize(static_cast<size_t>(num_blocks));
  tokens_.resize(static_cast<size_t>(num_blocks) * static_cast<size_t>(block_size));
  buckets_.resize(std::bit_ceil(2 * static_cast<size_t>(num_blocks)), -1);  // so that most chains are of one
}

PrefixId PrefixCache::open_root(const std::string& adapter, uint64_t salt) {
  auto [found, is_new] = root_ids_.try_emplace({adapter, salt});
  if (is_new) {
    found->second = PrefixId(++last_root_id_ | kRootBit);
    roots_.emplace(found->second, Root{found->first, 0});
  }
  ++roots_.at(found->second).users;
  return found->second;
}

void PrefixCache::close_root(PrefixId root) {
  CHECK(roots_.contains(root)) << "prefix " << root.value() << " is no open root";
  drop_root_user(root);
}

void PrefixCache::drop_root_user(PrefixId root) {
  const auto found = roots_.find(root);
  CHECK(found != roots_.end());
  CHECK_GT(found->second.users, 0);
  if (--found->second.users > 0) return;
  root_ids_.erase(found->second.key);
  roots_.erase(found);
}

std::span<const int32_t> PrefixCache::tokens_of(int32_t block) const {
  return std::span(tokens_).subspan(static_cast<size_t>(block) * static_cast<size_t>(block_size_),
                                    static_cast<size_t>(block_size_));
}

uint64_t PrefixCache::hash_of(PrefixId parent, std::span<const int32_t> tokens) const {
  constexpr uint64_t kOdd = 0x9e3779b97f4a7c15;
  uint64_t hash = mix(parent.value() ^ hash_seed_, kOdd);
  for (const int32_t token : tokens) hash = mix(hash ^ static_cast<uint32_t>(token), kOdd ^ hash_seed_ << 1);
  return hash;
}

std::optional<PrefixCache::Hit> PrefixCache::find_hashed(uint64_t hash, PrefixId parent,
                                                         std::span<const int32_t> tokens) const {
  for (int32_t block = buckets_[hash & (buckets_.size() - 1)]; block >= 0;) {
    const Entry& entry = entries_[static_cast<size_t>(block)];
    if (entry.hash == hash && entry.parent == parent && std::ranges::equal(tokens_of(block), tokens)) {
      return Hit{BlockId(block), entry.id};
    }
    block = entry.next;
  }
  return std::nullopt;
}

std::optional<PrefixCache::Hit> PrefixCache::find(PrefixId parent, std::span<const int32_t> tokens) const {
  CHECK_EQ(tokens.size(), static_cast<size_t>(block_size_));
  return find_hashed(hash_of(parent, tokens), parent, tokens);
}

PrefixId PrefixCache::insert(PrefixId parent, std::span<const int32_t> tokens, BlockId block) {
  CHECK_EQ(tokens.size(), static_cast<size_t>(block_size_));
  CHECK(!contains(block)) << "block " << block.value() << " already holds prefix " << entry(block).id.value();
  const uint64_t hash = hash_of(parent, tokens);
  if (const auto known = find_hashed(hash, parent, tokens)) return known->prefix;
  const auto index = static_cast<size_t>(block.value());
  int32_t& bucket = buckets_[hash & (buckets_.size() - 1)];
  entries_[index] = {PrefixId(++last_id_), parent, hash, bucket};
  bucket = block.value();
  std::ranges::copy(tokens, tokens_.begin() + static_cast<ptrdiff_t>(index) * block_size_);
  if (is_root(parent)) ++roots_.at(parent).users;
  return entries_[index].id;
}

void PrefixCache::erase(BlockId block) {
  if (!contains(block)) return;
  Entry& erased = entries_[static_cast<size_t>(block.value())];
  int32_t* link = &buckets_[erased.hash & (buckets_.size() - 1)];
  while (*link != block.value()) link = &entries_[static_cast<size_t>(*link)].next;
  *link = erased.next;
  if (is_root(erased.parent)) drop_root_user(erased.parent);
  erased = {};
}

void PrefixCache::clear() {
  for (int32_t block = 0; block < static_cast<int32_t>(entries_.size()); ++block) erase(BlockId(block));
}

}  // namespace lorikeet::engine
