// How many bytes of adapters may be on their way to a rank of another host: twice what its connection carries in the time
// that a chunk and its answer take (bandwidth x delay). So a fast link over a long way is kept full, and on a slow one
// plans, results and heartbeats, which share the connection, wait behind no more than about one such time's worth.
//
// Both are measured by the answers to chunks:
//   delay      the shortest time from a chunk to its answer since the connection was last idle: its first chunk then waits
//              behind no other
//   bandwidth  the most that was answered in a second, of the last kSamples answers: bytes answered between the answer
//              before a chunk was sent and its own. While the window is what limits, the factor of two lets it grow.
// One for each connection, whatever transfers share it. Threads: one.
#pragma once

#include <array>
#include <chrono>
#include <cstddef>
#include <cstdint>
#include <vector>

namespace lorikeet::actors {

class ChunkWindow {
 public:
  using TimePoint = std::chrono::steady_clock::time_point;
  static constexpr size_t kLeast = 512 << 10;  // two chunks: one is taken while the other one comes
  static constexpr size_t kFirst = 1 << 20;    // before anything was measured
  static constexpr size_t kMost = 16 << 20;
  static constexpr size_t kSamples = 16;

  // What is remembered of a chunk until its answer comes.
  struct Sent {
    size_t bytes = 0;
    TimePoint at;
    uint64_t answered = 0;  // bytes that were answered by then
    TimePoint answered_at;  // the last of them
    bool fills = false;     // the window had no room for another one
  };

  // Whether a chunk of so many bytes may be sent now; the first one always.
  bool has_room(size_t bytes) const { return in_flight_ == 0 || in_flight_ + bytes <= this->bytes(); }
  Sent sent(size_t bytes, TimePoint now);
  void answered(const Sent& chunk, TimePoint now);
  void forget(const Sent& chunk);  // nobody waits for its answer any more

  size_t bytes() const { return bytes_; }  // of the window
  size_t in_flight() const { return in_flight_; }

 private:
  using Nanoseconds = std::chrono::nanoseconds;

  void measure(const Sent& chunk, TimePoint now);

  size_t bytes_ = kFirst;
  size_t in_flight_ = 0;
  uint64_t answered_ = 0;
  TimePoint answered_at_;
  bool was_idle_ = true;  // the next answer's delay is no other chunk's doing
  Nanoseconds delay_{0};
  std::array<double, kSamples> rates_{};  // the last ones, in bytes per nanosecond
  size_t next_rate_ = 0;
};

using ChunkWindows = std::vector<ChunkWindow>;  // [ranks]

}  // namespace lorikeet::actors
