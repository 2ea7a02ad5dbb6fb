// What carries plans, results and adapter slices between the head and the ranks: one byte vector, as comm/codec and
// actors/wire/step_codec.h write it, cut into parts that stay far under 1 MiB, so that no message holds up the
// heartbeats behind it.
#pragma once

#include <array>
#include <cstddef>
#include <cstdint>
#include <optional>
#include <vector>

#include "actors/wire/limits.h"
#include "kernels/base/error.h"

namespace lorikeet::actors {

// What the bytes of an envelope encode, by its direction (actors/wire/wire.h). Streams are independent of each other:
// parts of messages on different ones may be interleaved.
enum class EnvelopeStream : uint8_t {
  group,     // scheduler -> rank: GroupOrder; back: GroupReport
  steps,     // scheduler -> rank: engine::StepPlan; back: engine::StepResult
  adapters,  // adapter cache -> rank: AdapterOrder; back: AdapterReport
};
inline constexpr size_t kEnvelopeStreams = static_cast<size_t>(EnvelopeStream::adapters) + 1;

struct Envelope {
  EnvelopeStream stream = EnvelopeStream::steps;
  int32_t rank = 0;    // the sender's or the receiver's, whichever is not the head
  uint64_t epoch = 0;  // envelopes of another epoch are dropped
  uint64_t step = 0;   // of a plan or a result; 0 on other streams
  bool last = true;    // false: more parts of the same message follow
  std::vector<uint8_t> bytes;
};

// The parts of a message, of kEnvelopeBytes at most. `like` gives everything but the bytes.
std::vector<Envelope> split(const Envelope& like, std::vector<uint8_t> bytes);

// Puts messages together again. One assembler serves one sender.
class EnvelopeAssembler {
 public:
  // max_bytes: of what is unfinished on all streams together.
  explicit EnvelopeAssembler(size_t max_bytes = kMaxMessageBytes) : max_bytes_(max_bytes) {}

  // The whole message, or nothing yet. Errors: a stream that does not exist, parts that are too large or of different
  // steps; what was collected on the stream is then dropped.
  Result<std::optional<std::vector<uint8_t>>> add(Envelope envelope);

 private:
  struct Partial {
    uint64_t step = 0;
    std::vector<uint8_t> bytes;
  };
  void drop(Partial& partial);

  size_t max_bytes_;
  size_t bytes_ = 0;  // of all partial messages
  std::array<Partial, kEnvelopeStreams> partial_;
};

}  // namespace lorikeet::actors
