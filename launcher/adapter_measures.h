// The measurements of `lorikeet bench adapters`: what it costs to load adapters, by where they are.
#pragma once

#include <cstddef>
#include <cstdint>
#include <filesystem>
#include <string>
#include <vector>

#include "kernels/base/error.h"
#include "launcher/bench_engine.h"
#include "launcher/bench_report.h"
#include "launcher/bench_runs.h"

namespace lorikeet::launcher {

inline constexpr int32_t kBeyondSlots = 8;  // adapters that have no slot while all slots are taken
inline constexpr size_t kLoadsBesideStreams = 16;

// Which adapters there are, by their names. Those of the pool are asked for again and again; of the others each is new.
struct BenchAdapters {
  int32_t pool = 0;
  int32_t fresh = 0;
  std::filesystem::path directory;

  std::string pool_name(int32_t i) const { return std::to_string(i); }
  std::string fresh_name(int32_t i) const { return std::to_string(pool + i); }
  std::vector<std::string> pool_names() const {
    std::vector<std::string> names;
    for (int32_t i = 0; i < pool; ++i) names.push_back(pool_name(i));
    return names;
  }
  int32_t size() const { return pool + fresh; }
};

// Tokens that measure_adapters() generates in all, for its progress bar.
int64_t tokens_of_measures(const BenchFlags& flags, const BenchAdapters& adapters, int64_t longest_prompt);

// Fills the report: time to the first token by tier, loads per second, delay of running streams and steps by loads,
// throughput over the number of adapters. Writes the plot that the flags ask for.
Result<void> measure_adapters(const BenchFlags& flags, BenchReport& report, BenchEngine& engine,
                              const BenchAdapters& adapters);

}  // namespace lorikeet::launcher
