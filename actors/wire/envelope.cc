#include "actors/wire/envelope.h"

#include <algorithm>
#include <utility>

namespace lorikeet::actors {

std::vector<Envelope> split(const Envelope& like, std::vector<uint8_t> bytes) {
  std::vector<Envelope> parts;
  const auto part = [&](bool last, std::vector<uint8_t> of) {
    parts.push_back({like.stream, like.rank, like.epoch, like.step, last, std::move(of)});
  };
  if (bytes.size() <= kEnvelopeBytes) {
    part(true, std::move(bytes));
    return parts;
  }
  for (size_t begin = 0; begin < bytes.size(); begin += kEnvelopeBytes) {
    const size_t end = std::min(begin + kEnvelopeBytes, bytes.size());
    part(end == bytes.size(),
         {bytes.begin() + static_cast<ptrdiff_t>(begin), bytes.begin() + static_cast<ptrdiff_t>(end)});
  }
  return parts;
}

Result<std::optional<std::vector<uint8_t>>> EnvelopeAssembler::add(Envelope envelope) {
  const auto stream = static_cast<size_t>(envelope.stream);
  if (stream >= kEnvelopeStreams) return fail("an envelope of the unknown stream {}", stream);
  Partial& partial = partial_[stream];
  if (!partial.bytes.empty() && partial.step != envelope.step) {
    const uint64_t step = partial.step;
    drop(partial);
    return fail("a part of step {} in a message of step {}", envelope.step, step);
  }
  const size_t size = partial.bytes.size() + envelope.bytes.size();
  if (envelope.bytes.size() > kEnvelopeBytes || bytes_ + envelope.bytes.size() > max_bytes_) {
    drop(partial);
    return fail("a message of {} bytes or more in parts of {} bytes", size, envelope.bytes.size());
  }
  if (envelope.last && partial.bytes.empty()) return std::move(envelope.bytes);
  partial.step = envelope.step;
  partial.bytes.insert(partial.bytes.end(), envelope.bytes.begin(), envelope.bytes.end());
  bytes_ += envelope.bytes.size();
  if (!envelope.last) return std::nullopt;
  bytes_ -= size;
  return std::exchange(partial, {}).bytes;
}

void EnvelopeAssembler::drop(Partial& partial) {
  bytes_ -= partial.bytes.size();
  partial = {};
}

}  // namespace lorikeet::actors
