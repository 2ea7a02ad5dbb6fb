#include "actors/head/chunk_window.h"

#include <algorithm>

namespace lorikeet::actors {

ChunkWindow::Sent ChunkWindow::sent(size_t bytes, TimePoint now) {
  if (in_flight_ == 0) {
    was_idle_ = true;
    answered_at_ = now;
  }
  in_flight_ += bytes;
  return {bytes, now, answered_, answered_at_, !has_room(bytes)};
}

void ChunkWindow::answered(const Sent& chunk, TimePoint now) {
  forget(chunk);
  answered_ += chunk.bytes;
  answered_at_ = now;
  if (now > chunk.at) measure(chunk, now);
}

void ChunkWindow::measure(const Sent& chunk, TimePoint now) {
  const Nanoseconds delay = now - chunk.at;
  delay_ = was_idle_ ? delay : std::min(delay_, delay);
  was_idle_ = false;
  const double rate = static_cast<double>(answered_ - chunk.answered) /
                      static_cast<double>(Nanoseconds(now - chunk.answered_at).count());
  const double best = *std::max_element(rates_.begin(), rates_.end());
  // A rate that was low because there was nothing more to send says nothing about the connection.
  if (chunk.fills || rate > best) {
    rates_[next_rate_] = rate;
    next_rate_ = (next_rate_ + 1) % kSamples;
  }
  const double wanted =
      2 * *std::max_element(rates_.begin(), rates_.end()) * static_cast<double>(Nanoseconds(delay_).count());
  bytes_ = static_cast<size_t>(std::clamp(wanted, static_cast<double>(kLeast), static_cast<double>(kMost)));
}

void ChunkWindow::forget(const Sent& chunk) {
  in_flight_ -= std::min(in_flight_, chunk.bytes);
}

}  // namespace lorikeet::actors
