#include <algorithm>
#include <chrono>
#include <cstdint>
#include <cstring>
#include <functional>
#include <thread>
#include <vector>

#include "kernels/base/floors.h"

namespace lorikeet::kernels {
namespace {

constexpr size_t kWords = (256ULL << 20) / sizeof(uint64_t);  // of each of two buffers
constexpr int kPasses = 5;

// Seconds until `threads` threads have each done work(thread); the shortest of all passes, since other programs' turns
// only ever add.
double shortest_pass(int threads, const std::function<void(int)>& work) {
  double shortest = 0;
  for (int pass = 0; pass < kPasses; ++pass) {
    const auto begin = std::chrono::steady_clock::now();
    std::vector<std::thread> team;
    for (int t = 1; t < threads; ++t) team.emplace_back(work, t);
    work(0);
    for (std::thread& member : team) member.join();
    const double seconds = std::chrono::duration<double>(std::chrono::steady_clock::now() - begin).count();
    shortest = pass == 0 ? seconds : std::min(shortest, seconds);
  }
  return shortest;
}

// Independent sums, so that nothing but the loads limits it.
uint64_t sum_of(const uint64_t* words, size_t count) {
  constexpr size_t kSums = 32;
  uint64_t sums[kSums] = {};
  for (size_t i = 0; i + kSums <= count; i += kSums) {
    for (size_t j = 0; j < kSums; ++j) sums[j] += words[i + j];
  }
  uint64_t sum = 0;
  for (const uint64_t part : sums) sum += part;
  return sum;
}

}  // namespace

Floors measure_cpu_floors(int threads) {
  threads = std::max(1, threads);
  const size_t part = kWords / static_cast<size_t>(threads);
  std::vector<uint64_t> from(kWords, 1), to(kWords, 2);
  constexpr size_t kApart = 8;  // sums of different threads on different cache lines
  std::vector<uint64_t> sinks(static_cast<size_t>(threads) * kApart);
  const double read = shortest_pass(threads, [&](int t) {
    const auto i = static_cast<size_t>(t);
    sinks[i * kApart] = sum_of(from.data() + i * part, part);
  });
  const double copy = shortest_pass(threads, [&](int t) {
    const size_t begin = static_cast<size_t>(t) * part;
    std::memcpy(to.data() + begin, from.data() + begin, part * sizeof(uint64_t));
  });
  const auto bytes = static_cast<double>(part * static_cast<size_t>(threads) * sizeof(uint64_t));
  volatile uint64_t used = sinks[0] + to[0];  // or the passes would do nothing
  (void)used;
  return {bytes / read, 2 * bytes / copy, 0};
}

}  // namespace lorikeet::kernels
