// Sequences' block tables: the pool and the prefix cache moved together, so that neither forgets the other.
//
// When content may be shared: a full block of known tokens may be published once the plan that computes it is made.
// Ranks execute plans in order, so every later plan finds it computed, whether or not the result is back. The plan that
// computes it may not share it, since the rows of a plan run side by side: so a plan shares before it publishes.
//
// When memory may be reused: as soon as it is released, even with a plan in flight that still writes there for a
// sequence that has ended meanwhile. Whoever takes the block does so in a later plan, and overwrites it after that.
#pragma once

#include <cstdint>
#include <span>

#include "engine/block_pool.h"
#include "engine/plan_step.h"
#include "engine/prefix_cache.h"
#include "engine/sequence.h"

namespace lorikeet::engine {

class KvCache {
 public:
  KvCache(int32_t num_blocks, int32_t block_size, bool share_prefixes);

  Prefix open_root(const std::string& adapter, uint64_t salt) { return prefixes_.open_root(adapter, salt); }
  void close_root(const Prefix& root) { prefixes_.close_root(root); }

  // The blocks that `sequence`, which holds none, could share. The last token is never among them: the next one is
  // drawn from what computing it gives.
  PrefixHits prefix_hits(const Sequence& sequence) const;

  // Puts them into its table. Returns the number of tokens in them.
  int32_t share_prefix(Sequence& sequence);

  // Takes free blocks until the table covers `positions`. CHECKs that there are enough.
  void extend(Sequence& sequence, int32_t positions);

  // Lets others share what is full of known tokens and in a plan.
  void publish(Sequence& sequence);

  // Publishes, then empties the table. Cached content stays findable until its block is taken again.
  void release(Sequence& sequence);

  // What was published so far; later publications are later than this.
  PrefixId latest() const { return prefixes_.latest(); }

  // How many of a sequence's first `positions` do not rest on blocks that it found in the cache and that were published
  // after `mark`.
  int32_t resting_on(const Sequence& sequence, int32_t positions, PrefixId mark) const;

  // Nobody finds any more what was published after `mark`; tables keep their blocks.
  void forget_later(PrefixId mark) { prefixes_.forget_later(mark); }

  // After forget_later(mark), with resting_on() positions: the sequence keeps the blocks of its known tokens, but none of
  // those that it was wrong to find, since who publishes them will write there. What it has published of its first
  // `positions` is what others still find.
  void keep(Sequence& sequence, int32_t positions, PrefixId mark);

  // Asks the memory early for what release() will read of the sequence.
  void prefetch_for_release(const Sequence& sequence) const;

  // Forgets which blocks hold which prefix; tables keep theirs. What is published behind a forgotten prefix is not found.
  void forget_prefixes() { prefixes_.clear(); }

  // Forgets all content: the ranks' memory is gone. CHECKs that no table holds a block.
  void clear();

  // The same, and from now on there are so many blocks.
  void resize(int32_t num_blocks);

  int32_t num_blocks() const { return pool_.num_blocks(); }
  int32_t num_free() const { return pool_.num_free(); }
  std::span<const int32_t> reference_counts() const { return pool_.reference_counts(); }

 private:
  template <class Visitor>
  void visit_prefix(const Sequence& sequence, Visitor&& visit) const;

  const bool share_prefixes_;
  const int32_t block_size_;
  BlockPool pool_;
  PrefixCache prefixes_;
};

}  // namespace lorikeet::engine
