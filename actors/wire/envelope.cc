#include "actors/wire/envelope.h"

#include <algorithm>
#include <utility>

namespace lorikeet::actors {

std::vector<Envelope> split(const Envelope& like, std::vector<uint8_t> bytes) {
  std::vector<Envelope> parts;
  const auto part = [&](bool last, std::vector<uint8_t> of) {
    parts.push_back({like.kind, like.rank, like.epoch, like.step, last, std::move(of)});
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
  const auto kind = static_cast<size_t>(envelope.kind);
  if (kind >= kEnvelopeKinds) return fail("an envelope of unknown kind {}", kind);
  std::vector<uint8_t>& partial = partial_[kind];
  if (envelope.bytes.size() > kEnvelopeBytes || partial.size() + envelope.bytes.size() > kMaxMessageBytes) {
    const size_t size = partial.size() + envelope.bytes.size();
    partial.clear();
    return fail("a message of {} bytes or more in parts of {} bytes", size, envelope.bytes.size());
  }
  if (envelope.last && partial.empty()) return std::move(envelope.bytes);
  partial.insert(partial.end(), envelope.bytes.begin(), envelope.bytes.end());
  if (!envelope.last) return std::nullopt;
  return std::exchange(partial, {});
}

}  // namespace lorikeet::actors
