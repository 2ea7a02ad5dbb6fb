// What this machine gives at the most, measured in the run that prints the figures beside it, and how times are
// compared.
#pragma once

#include <benchmark/benchmark.h>

#include <algorithm>
#include <chrono>
#include <cstdint>
#include <ctime>
#include <random>
#include <string>
#include <thread>
#include <vector>

namespace lorikeet::bench {

// Seconds by the wall, and seconds for which the process's threads ran. Where the machine is shared the second says
// more.
struct Seconds {
  double wall = 0, cpu = 0;
};

inline double process_seconds() {
  timespec t{};
  clock_gettime(CLOCK_PROCESS_CPUTIME_ID, &t);
  return static_cast<double>(t.tv_sec) + 1e-9 * static_cast<double>(t.tv_nsec);
}

template <class Work>
Seconds seconds_of(const Work& work) {
  const auto begin = std::chrono::steady_clock::now();
  const double cpu = process_seconds();
  work();
  return {std::chrono::duration<double>(std::chrono::steady_clock::now() - begin).count(), process_seconds() - cpu};
}

// Times of two things that were measured in turn, and the median of their ratios.
class Comparison {
 public:
  void add(const Seconds& floor, const Seconds& taken) {
    wall_.push_back(floor.wall / taken.wall);
    cpu_.push_back(floor.cpu / taken.cpu);
  }
  // Sets `name` (by the wall) and name_cpu to floor / taken.
  void report(benchmark::State& state, const std::string& name) {
    state.counters[name] = median(wall_);
    state.counters[name + "_cpu"] = median(cpu_);
  }

 private:
  static double median(std::vector<double>& values) {
    std::sort(values.begin(), values.end());
    return values.empty() ? 0 : values[values.size() / 2];
  }
  std::vector<double> wall_, cpu_;
};

// The time in which `threads` threads read `bytes` from memory, extrapolated from one pass over a buffer far larger
// than the caches. Independent sums, so that nothing but the loads limits it.
inline Seconds read_time(size_t bytes, int threads) {
  static const std::vector<uint64_t> buffer((128ULL << 20) / 8, 1);
  std::vector<uint64_t> sinks(static_cast<size_t>(threads) * 8);
  const auto read_part = [&](int t) {
    const size_t part = buffer.size() / static_cast<size_t>(threads);
    const uint64_t* p = buffer.data() + part * static_cast<size_t>(t);
    uint64_t sums[32] = {};
    for (size_t i = 0; i + 32 <= part; i += 32) {
      for (size_t j = 0; j < 32; ++j) sums[j] += p[i + j];
    }
    for (size_t j = 1; j < 32; ++j) sums[0] += sums[j];
    sinks[static_cast<size_t>(t) * 8] = sums[0];
  };
  const Seconds pass = seconds_of([&] {
    std::vector<std::thread> team;
    for (int t = 1; t < threads; ++t) team.emplace_back(read_part, t);
    read_part(0);
    for (std::thread& member : team) member.join();
  });
  benchmark::DoNotOptimize(sinks.data());
  const double share = static_cast<double>(bytes) / static_cast<double>(buffer.size() * 8);
  return {pass.wall * share, pass.cpu * share};
}

inline std::vector<float> random_floats(size_t count) {
  std::mt19937 random(2);
  std::vector<float> values(count);
  for (float& value : values) value = static_cast<float>(random() % 2001) / 1000 - 1;
  return values;
}

}  // namespace lorikeet::bench
