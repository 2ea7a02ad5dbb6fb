// How often durations of which length were seen, in few numbers: each power of two of nanoseconds is divided into
// kSteps equal buckets (as HdrHistogram does), so that a percentile is at most 1 / kSteps too long. Histograms add and
// subtract, so that one stretch of time can be cut out of the totals.
#pragma once

#include <algorithm>
#include <array>
#include <bit>
#include <cmath>
#include <cstddef>
#include <cstdint>
#include <utility>
#include <vector>

namespace lorikeet::actors {

class TimeHistogram {
 public:
  void add(uint64_t ns) { ++counts_[bucket_of(ns)]; }

  TimeHistogram& operator+=(const TimeHistogram& other) {
    for (size_t i = 0; i < kBuckets; ++i) counts_[i] += other.counts_[i];
    return *this;
  }
  // `other`: of an earlier time.
  TimeHistogram& operator-=(const TimeHistogram& other) {
    for (size_t i = 0; i < kBuckets; ++i) counts_[i] -= other.counts_[i];
    return *this;
  }

  uint64_t count() const {
    uint64_t sum = 0;
    for (const uint64_t count : counts_) sum += count;
    return sum;
  }

  // Nanoseconds that a share `p` (0 .. 1) of the durations do not exceed; 0 without any.
  uint64_t percentile(double p) const {
    const auto wanted = static_cast<uint64_t>(std::ceil(p * static_cast<double>(count())));
    uint64_t seen = 0;
    for (size_t i = 0; i < kBuckets; ++i) {
      seen += counts_[i];
      if (counts_[i] > 0 && seen >= wanted) return longest_of(i);
    }
    return 0;
  }

  // As data, in messages and for metrics: the longest duration of a bucket in nanoseconds and its count, ascending, of
  // the buckets that have any.
  using Plain = std::vector<std::pair<uint64_t, uint64_t>>;
  Plain plain() const {
    Plain buckets;
    for (size_t i = 0; i < kBuckets; ++i) {
      if (counts_[i] > 0) buckets.emplace_back(longest_of(i), counts_[i]);
    }
    return buckets;
  }
  static TimeHistogram from_plain(const Plain& buckets) {
    TimeHistogram histogram;
    for (const auto& [longest, count] : buckets) histogram.counts_[bucket_of(longest)] += count;
    return histogram;
  }

  bool operator==(const TimeHistogram&) const = default;

 private:
  static constexpr int kStepBits = 3;
  static constexpr uint64_t kSteps = 1 << kStepBits;
  static constexpr int kPowers = 40;  // up to 2^42 ns, 73 minutes; longer ones count as that
  static constexpr size_t kBuckets = kPowers * kSteps;

  static size_t bucket_of(uint64_t ns) {
    if (ns < kSteps) return ns;
    const int shift = std::bit_width(ns) - 1 - kStepBits;
    return std::min(kBuckets - 1, static_cast<size_t>(shift) * kSteps + static_cast<size_t>(ns >> shift));
  }
  static uint64_t longest_of(size_t bucket) {
    if (bucket < 2 * kSteps) return bucket;
    const size_t shift = bucket / kSteps - 1;
    return ((kSteps + bucket % kSteps + 1) << shift) - 1;
  }

  std::array<uint64_t, kBuckets> counts_{};
};

}  // namespace lorikeet::actors
