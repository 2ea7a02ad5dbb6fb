// What carries plans, results and adapter slices between the head and the ranks: one cereal-encoded byte vector, cut
// into parts that stay far under 1 MiB, so that no message holds up the heartbeats behind it.
#pragma once

#include <array>
#include <cstddef>
#include <cstdint>
#include <optional>
#include <span>
#include <vector>

#include "kernels/base/error.h"

namespace lorikeet::actors {

// What the bytes of an envelope encode (actors/wire/wire.h, engine/step_plan.h).
enum class EnvelopeKind : uint8_t {
  // head -> rank
  form_group,       // FormGroup
  plan,             // engine::StepPlan
  fence,            // empty: the epoch is over
  adapter_begin,    // AdapterBegin
  adapter_chunk,    // raw bytes of the slice; every one is answered with chunk_taken
  adapter_factors,  // DoraValues
  adapter_clear,    // AdapterBegin with no bytes: empties the slot
  // rank -> head
  loaded,         // RankLoaded
  ready,          // empty: the rank has met the others
  result,         // engine::StepResult
  chunk_taken,    // empty: one credit
  adapter_norms,  // DoraValues
  adapter_done,   // AdapterDone
};
inline constexpr size_t kEnvelopeKinds = static_cast<size_t>(EnvelopeKind::adapter_done) + 1;

struct Envelope {
  EnvelopeKind kind = EnvelopeKind::plan;
  int32_t rank = 0;    // the sender's or the receiver's, whichever is not the head
  uint64_t epoch = 0;  // envelopes of another epoch are dropped
  uint64_t step = 0;   // of a plan or result; of an adapter's envelope: the number of its transfer
  bool last = true;    // false: more parts of the same message follow
  std::vector<uint8_t> bytes;
};

inline constexpr size_t kEnvelopeBytes = 256 << 10;          // bytes in one part
inline constexpr size_t kMaxMessageBytes = size_t{1} << 30;  // bytes of a message put together again

// The parts of a message. `like` gives everything but the bytes.
std::vector<Envelope> split(const Envelope& like, std::vector<uint8_t> bytes);

// Puts messages together again. One assembler serves one sender; messages of different kinds may be interleaved.
class EnvelopeAssembler {
 public:
  // The whole message, or nothing yet. An error drops what was collected of the kind.
  Result<std::optional<std::vector<uint8_t>>> add(Envelope envelope);

 private:
  std::array<std::vector<uint8_t>, kEnvelopeKinds> partial_;
};

}  // namespace lorikeet::actors
