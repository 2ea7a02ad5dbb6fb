// What this machine gives at the most, measured in the run that prints the figures beside it.
#pragma once

#include <algorithm>
#include <chrono>
#include <cstdint>
#include <cstring>
#include <thread>
#include <vector>

namespace lorikeet::bench {

// Seconds of one call of `work`.
template <class Work>
double seconds_of(Work work) {
  const auto begin = std::chrono::steady_clock::now();
  work();
  return std::chrono::duration<double>(std::chrono::steady_clock::now() - begin).count();
}

// Bytes per second that `threads` threads read from memory: the best of several passes over a buffer far larger than
// the caches. Eight independent sums, so that nothing but the loads limits it.
inline double read_bandwidth(int threads, size_t bytes = 256ULL << 20) {
  static std::vector<uint64_t> buffer(bytes / 8, 1);
  double best = 0;
  for (int round = 0; round < 5; ++round) {
    std::vector<uint64_t> sinks(static_cast<size_t>(threads) * 8);
    const double seconds = seconds_of([&] {
      std::vector<std::thread> team;
      for (int t = 0; t < threads; ++t) {
        team.emplace_back([&, t] {
          const size_t part = buffer.size() / static_cast<size_t>(threads);
          const uint64_t* p = buffer.data() + part * static_cast<size_t>(t);
          uint64_t sums[32] = {};
          for (size_t i = 0; i + 32 <= part; i += 32) {
            for (size_t j = 0; j < 32; ++j) sums[j] += p[i + j];
          }
          for (size_t j = 1; j < 32; ++j) sums[0] += sums[j];
          sinks[static_cast<size_t>(t) * 8] = sums[0];
        });
      }
      for (std::thread& member : team) member.join();
    });
    volatile uint64_t sink = sinks[0];
    (void)sink;
    best = std::max(best, static_cast<double>(buffer.size() * 8) / seconds);
  }
  return best;
}

}  // namespace lorikeet::bench
