// The sequences' block tables. Changes the pool and the prefix cache together, so that they stay consistent.
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

  // The blocks that `sequence`, which holds none, could share. They never include its last token, which has to be computed to
  // draw the next one.
  PrefixHits prefix_hits(const Sequence& sequence) const;

  // Puts them into its table. Returns the number of tokens in them.
  int32_t share_prefix(Sequence& sequence);

  // Takes free blocks until the table covers `positions`. CHECKs that there are enough.
  void extend(Sequence& sequence, int32_t positions);

  // Lets others share the sequence's blocks that are full of known tokens and in a plan.
  void publish(Sequence& sequence);

  // Publishes, then empties the table. Cached content stays findable until its block is taken again.
  void release(Sequence& sequence);

  // A mark: everything published so far is not later than it, everything published from now on is.
  PrefixId latest() const { return prefixes_.latest(); }

  // How many of a sequence's first `positions` may be kept: up to the first block that it found in the cache and that was
  // published after `mark`.
  int32_t resting_on(const Sequence& sequence, int32_t positions, PrefixId mark) const;

  // Nobody finds any more what was published after `mark`; tables keep their blocks.
  void forget_later(PrefixId mark) { prefixes_.forget_later(mark); }

  // After forget_later(mark), with resting_on() positions: the sequence keeps the blocks of its known tokens, except those
  // that it found and should not have, since their publisher will write to them. Others still find what it has published
  // of its first `positions`.
  void keep(Sequence& sequence, int32_t positions, PrefixId mark);

  // Prefetches what release() will read of the sequence.
  void prefetch_for_release(const Sequence& sequence) const;

  // Forgets which blocks hold which prefix; tables keep theirs. Blocks published behind a forgotten prefix are not found.
  void forget_prefixes() { prefixes_.clear(); }

  // Forgets all content: the ranks' memory is gone. CHECKs that no table holds a block.
  void clear();

  // The same, and the pool has `num_blocks` from now on.
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
