// What the head and the ranks say to each other besides plans and results; encoded by comm/codec/codec.h into
// envelopes.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

namespace lorikeet::actors {

// A rank has its weights.
struct RankLoaded {
  int32_t num_blocks = 0;    // KV blocks that it can hold
  uint64_t block_bytes = 0;  // of one of them
  uint64_t weight_bytes = 0;
  template <class Self, class Visitor>
  static void fields(Self& s, Visitor&& visit) {
    visit("num_blocks", s.num_blocks);
    visit("block_bytes", s.block_bytes);
    visit("weight_bytes", s.weight_bytes);
  }
};

// All ranks have their weights: meet, and hold this many KV blocks each.
struct FormGroup {
  int32_t num_blocks = 0;
  template <class Self, class Visitor>
  static void fields(Self& s, Visitor&& visit) {
    visit("num_blocks", s.num_blocks);
  }
};

// A rank's slice of an adapter follows in chunks.
struct AdapterBegin {
  std::string digest;
  int32_t slot = 0;
  uint64_t bytes = 0;
  template <class Self, class Visitor>
  static void fields(Self& s, Visitor&& visit) {
    visit("digest", s.digest);
    visit("slot", s.slot);
    visit("bytes", s.bytes);
  }
};

// One vector of a DoRA adapter, per pair in the order layer, projection (then lm_head): the squared norms that a rank
// sums over its inputs, or the factors that the head returns.
struct DoraVector {
  std::vector<float> values;
  template <class Self, class Visitor>
  static void fields(Self& s, Visitor&& visit) {
    visit("values", s.values);
  }
};
struct DoraValues {
  std::vector<DoraVector> pairs;
  template <class Self, class Visitor>
  static void fields(Self& s, Visitor&& visit) {
    visit("pairs", s.pairs);
  }
};

// A rank has put the adapter into its slot, or says why not.
struct AdapterDone {
  std::string digest;
  std::string error;
  template <class Self, class Visitor>
  static void fields(Self& s, Visitor&& visit) {
    visit("digest", s.digest);
    visit("error", s.error);
  }
};

}  // namespace lorikeet::actors
