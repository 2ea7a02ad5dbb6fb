// What the head and the ranks say to each other besides plans and results; encoded by comm/codec/codec.h into
// envelopes. Orders go to a rank, reports come from it: one type for each direction and stream
// (actors/wire/envelope.h).
#pragma once

#include <cstddef>
#include <cstdint>
#include <string>
#include <variant>
#include <vector>

#include "actors/wire/envelope.h"

namespace lorikeet::actors {

// ---- EnvelopeStream::group

// All ranks have their weights: meet, and hold this many KV blocks each.
struct FormGroup {
  int32_t num_blocks = 0;
  template <class Self, class Visitor>
  static void fields(Self& s, Visitor&& visit) {
    visit("num_blocks", s.num_blocks);
  }
};

// The epoch is over.
struct Fence {
  template <class Self, class Visitor>
  static void fields(Self&, Visitor&&) {}
};

// A rank has its weights.
struct RankLoaded {
  int32_t num_blocks = 0;    // KV blocks that it can hold
  uint64_t block_bytes = 0;  // of one of them
  uint64_t weight_bytes = 0;
  uint64_t weight_bytes_read = 0;  // from files; 0: its predecessor has left them
  uint64_t kv_epoch = 0;           // of the group with which its KV cache was made; 0: it has none yet
  template <class Self, class Visitor>
  static void fields(Self& s, Visitor&& visit) {
    visit("num_blocks", s.num_blocks);
    visit("block_bytes", s.block_bytes);
    visit("weight_bytes", s.weight_bytes);
    visit("weight_bytes_read", s.weight_bytes_read);
    visit("kv_epoch", s.kv_epoch);
  }
};

// A rank has met the others.
struct RankReady {
  template <class Self, class Visitor>
  static void fields(Self&, Visitor&&) {}
};

// A grammar that sequences of later plans name by its digest; answered with GrammarCompiled.
struct GrammarText {
  std::string digest;  // of what follows
  int32_t kind = 0;    // model::GrammarKind
  std::string text;
  template <class Self, class Visitor>
  static void fields(Self& s, Visitor&& visit) {
    visit("digest", s.digest);
    visit("kind", s.kind);
    visit("text", s.text);
  }
};

// No sequence of later plans names it, unless it is sent again.
struct GrammarDrop {
  std::string digest;
  template <class Self, class Visitor>
  static void fields(Self& s, Visitor&& visit) {
    visit("digest", s.digest);
  }
};

struct GrammarCompiled {
  std::string digest;
  uint64_t bytes = 0;  // about, as compiled
  std::string error;   // not empty: why it is not
  template <class Self, class Visitor>
  static void fields(Self& s, Visitor&& visit) {
    visit("digest", s.digest);
    visit("bytes", s.bytes);
    visit("error", s.error);
  }
};

using GroupOrder = std::variant<FormGroup, Fence, GrammarText, GrammarDrop>;
using GroupReport = std::variant<RankLoaded, RankReady, GrammarCompiled>;

// ---- EnvelopeStream::adapters

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

// In place of AdapterBegin and chunks, to a rank of the head's host: the slice lies in memory whose descriptor has been
// sent under the transfer's number (actors/wire/descriptor_channel.h). Answered with ChunksWanted where none is there.
struct AdapterRegion {
  std::string digest;
  int32_t slot = 0;
  uint64_t region_bytes = 0;  // of the whole memory
  uint64_t offset = 0;        // of the slice in it
  uint64_t bytes = 0;
  template <class Self, class Visitor>
  static void fields(Self& s, Visitor&& visit) {
    visit("digest", s.digest);
    visit("slot", s.slot);
    visit("region_bytes", s.region_bytes);
    visit("offset", s.offset);
    visit("bytes", s.bytes);
  }
};

// In place of both: all ranks had this adapter in the slot in an earlier group. Answered with AdapterDone by a rank whose
// slot still holds it, with SliceWanted by one that is new, or has put something else there.
struct AdapterConfirm {
  std::string digest;
  int32_t slot = 0;
  template <class Self, class Visitor>
  static void fields(Self& s, Visitor&& visit) {
    visit("digest", s.digest);
    visit("slot", s.slot);
  }
};

// The next kAdapterChunkBytes of the slice, or what is left. Every chunk is answered with ChunkTaken.
struct AdapterChunk {
  std::vector<uint8_t> bytes;
  template <class Self, class Visitor>
  static void fields(Self& s, Visitor&& visit) {
    visit("bytes", s.bytes);
  }
};

// One vector of a DoRA adapter, per pair in the order layer, projection (then lm_head).
struct DoraVector {
  std::vector<float> values;
  template <class Self, class Visitor>
  static void fields(Self& s, Visitor&& visit) {
    visit("values", s.values);
  }
};
// In a report: the squared norms that a rank sums over its inputs. In an order: the factors that the head makes of
// them.
struct DoraValues {
  std::vector<DoraVector> pairs;
  template <class Self, class Visitor>
  static void fields(Self& s, Visitor&& visit) {
    visit("pairs", s.pairs);
  }
};

// Forget what has come of the transfer, and empty its slot.
struct AdapterClear {
  int32_t slot = 0;
  template <class Self, class Visitor>
  static void fields(Self& s, Visitor&& visit) {
    visit("slot", s.slot);
  }
};

// A chunk's answer: how soon it comes says how many may be on their way (actors/head/chunk_window.h).
struct ChunkTaken {
  template <class Self, class Visitor>
  static void fields(Self&, Visitor&&) {}
};

// A rank has got no descriptor for the slice, and takes it in chunks.
struct ChunksWanted {
  std::string why;
  template <class Self, class Visitor>
  static void fields(Self& s, Visitor&& visit) {
    visit("why", s.why);
  }
};

// The slot does not hold what AdapterConfirm names.
struct SliceWanted {
  template <class Self, class Visitor>
  static void fields(Self&, Visitor&&) {}
};

// A rank has the adapter in its slot, or says why not.
struct AdapterDone {
  std::string digest;
  std::string error;
  template <class Self, class Visitor>
  static void fields(Self& s, Visitor&& visit) {
    visit("digest", s.digest);
    visit("error", s.error);
  }
};

struct AdapterOrder {
  using What = std::variant<AdapterBegin, AdapterChunk, DoraValues, AdapterClear, AdapterRegion, AdapterConfirm>;
  uint64_t transfer = 0;  // its number, which no other one of the same head has
  What what;
  template <class Self, class Visitor>
  static void fields(Self& s, Visitor&& visit) {
    visit("transfer", s.transfer);
    visit("what", s.what);
  }
};
struct AdapterReport {
  using What = std::variant<ChunkTaken, DoraValues, AdapterDone, ChunksWanted, SliceWanted>;
  uint64_t transfer = 0;
  What what;
  template <class Self, class Visitor>
  static void fields(Self& s, Visitor&& visit) {
    visit("transfer", s.transfer);
    visit("what", s.what);
  }
};

}  // namespace lorikeet::actors
