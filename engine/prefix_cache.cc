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

constexpr uint64_t kOdd = 0x9e3779b97f4a7c15;

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
  CHECK_GT(block_size, 0);
  resize(num_blocks);
}

Prefix PrefixCache::open_root(const std::string& adapter, uint64_t salt) {
  auto [found, is_new] = root_ids_.try_emplace({adapter, salt});
  if (is_new) {
    found->second = PrefixId(++last_root_id_ | kRootBit);
    roots_.emplace(found->second, Root{found->first, 0});
  }
  ++roots_.at(found->second).users;
  return {found->second, mix(found->second.value() ^ hash_seed_, kOdd)};
}

void PrefixCache::close_root(const Prefix& root) {
  CHECK(roots_.contains(root.id)) << "prefix " << root.id.value() << " is no open root";
  drop_root_user(root.id);
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

uint64_t PrefixCache::hash_of(uint64_t parent, std::span<const int32_t> tokens) const {
  uint64_t hash = mix(parent ^ hash_seed_, kOdd);
  const uint64_t factor = kOdd ^ hash_seed_ << 1;
  size_t i = 0;
  for (; i + 1 < tokens.size(); i += 2) {
    const uint64_t two = uint64_t{static_cast<uint32_t>(tokens[i])} << 32 | static_cast<uint32_t>(tokens[i + 1]);
    hash = mix(hash ^ two, factor);
  }
  if (i < tokens.size()) hash = mix(hash ^ static_cast<uint32_t>(tokens[i]), factor);
  return hash;
}

std::optional<PrefixCache::Hit> PrefixCache::find_hashed(uint64_t hash, PrefixId parent,
                                                         std::span<const int32_t> tokens) const {
  for (size_t place = home_of(hash); places_[place].block >= 0; place = next_place(place)) {
    if (places_[place].hash != static_cast<uint32_t>(hash)) continue;
    const int32_t block = places_[place].block;
    const Entry& entry = entries_[static_cast<size_t>(block)];
    if (entry.hash == hash && entry.parent == parent && std::ranges::equal(tokens_of(block), tokens)) {
      return Hit{BlockId(block), {entry.id, hash}};
    }
  }
  return std::nullopt;
}

std::optional<PrefixCache::Hit> PrefixCache::find(const Prefix& parent, std::span<const int32_t> tokens) const {
  CHECK_EQ(tokens.size(), static_cast<size_t>(block_size_));
  return find_hashed(hash_of(parent.hash, tokens), parent.id, tokens);
}

Prefix PrefixCache::insert(const Prefix& parent, std::span<const int32_t> tokens, BlockId block, uint64_t hash) {
  CHECK_EQ(tokens.size(), static_cast<size_t>(block_size_));
  CHECK(!contains(block)) << "block " << block.value() << " already holds prefix " << entry(block).id.value();
  if (const auto known = find_hashed(hash, parent.id, tokens)) return known->prefix;
  const auto index = static_cast<size_t>(block.value());
  size_t place = home_of(hash);
  while (places_[place].block >= 0) place = next_place(place);
  places_[place] = {static_cast<uint32_t>(hash), block.value()};
  entries_[index] = {PrefixId(++last_id_), parent.id, hash};
  std::ranges::copy(tokens, tokens_.begin() + static_cast<ptrdiff_t>(index) * block_size_);
  if (is_root(parent.id)) ++roots_.at(parent.id).users;
  return {entries_[index].id, hash};
}

void PrefixCache::erase(BlockId block) {
  if (!contains(block)) return;
  Entry& erased = entries_[static_cast<size_t>(block.value())];
  size_t place = home_of(erased.hash);
  while (places_[place].block != block.value()) place = next_place(place);
  free_place(place);
  if (is_root(erased.parent)) drop_root_user(erased.parent);
  erased = {};
}

// Moves up what had to go past the place, so that every block is found without a gap between it and its home.
void PrefixCache::free_place(size_t place) {
  const size_t mask = places_.size() - 1;
  for (size_t i = next_place(place); places_[i].block >= 0; i = next_place(i)) {
    const size_t way = (i - home_of(places_[i].hash)) & mask;
    if (way < ((i - place) & mask)) continue;
    places_[place] = places_[i];
    place = i;
  }
  places_[place] = {};
}

void PrefixCache::prefetch_chain(const Prefix& parent, std::span<const int32_t> tokens) const {
  const auto block_size = static_cast<size_t>(block_size_);
  uint64_t hash = parent.hash;
  for (size_t end = block_size; end <= tokens.size(); end += block_size) {
    hash = hash_of(hash, tokens.subspan(end - block_size, block_size));
    __builtin_prefetch(&places_[home_of(hash)]);
  }
}

void PrefixCache::prefetch_insert(BlockId block, uint64_t hash) const {
  __builtin_prefetch(&places_[home_of(hash)], 1);
  __builtin_prefetch(&entry(block), 1);
  __builtin_prefetch(tokens_of(block.value()).data(), 1);
}

void PrefixCache::prefetch_entry(BlockId block) const {
  __builtin_prefetch(&entry(block), 1);
}

void PrefixCache::prefetch_links(BlockId block) const {
  if (contains(block)) __builtin_prefetch(&places_[home_of(entry(block).hash)], 1);
  __builtin_prefetch(tokens_of(block.value()).data(), 1);
}

void PrefixCache::forget_later(PrefixId than) {
  for (int32_t block = 0; block < static_cast<int32_t>(entries_.size()); ++block) {
    if (is_later(BlockId(block), than)) erase(BlockId(block));
  }
}

void PrefixCache::clear() {
  for (int32_t block = 0; block < static_cast<int32_t>(entries_.size()); ++block) erase(BlockId(block));
}

void PrefixCache::resize(int32_t num_blocks) {
  CHECK_GT(num_blocks, 0);
  clear();
  entries_.resize(static_cast<size_t>(num_blocks));
  tokens_.resize(static_cast<size_t>(num_blocks) * static_cast<size_t>(block_size_));
  places_.assign(std::bit_ceil(2 * static_cast<size_t>(num_blocks)), Place{});
}

}  // namespace lorikeet::engine
