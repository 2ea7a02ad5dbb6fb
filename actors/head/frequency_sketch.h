// Estimates how often keys were used recently, in a fixed amount of memory however many keys there are: a count-min sketch
// (Cormode, Muthukrishnan 2005) that forgets, as TinyLFU's does (Einziger, Friedman, Manes 2017). A count may be too
// high, where keys share all their counters; it is too low only by what was forgotten.
//
// Forgetting is spread over the additions, a few counters each, so that none of them costs more than another.
#pragma once

#include <array>
#include <cstddef>
#include <cstdint>
#include <vector>

namespace lorikeet::actors {

class FrequencySketch {
 public:
  static constexpr uint32_t kMost = 255;     // a count goes no higher
  static constexpr size_t kWindow = 16'384;  // additions in which every count is halved once

  FrequencySketch() : lines_(kLines) {}

  void add(uint64_t hash);
  uint32_t estimate(uint64_t hash) const;

 private:
  static constexpr size_t kRows = 4;      // counters of a key
  static constexpr size_t kLines = 2048;  // a key's counters are in one
  static constexpr size_t kColumns = 16;  // of each row in a line
  static constexpr size_t kAdditionsPerLine = kWindow / kLines;

  struct alignas(64) Line {
    std::array<std::array<uint8_t, kColumns>, kRows> counters{};
  };
  struct Places {
    size_t line = 0;
    std::array<size_t, kRows> columns{};
  };
  static Places places_of(uint64_t hash);

  std::vector<Line> lines_;
  size_t next_ = 0;  // line to be halved
  size_t additions_ = 0;
};

}  // namespace lorikeet::actors
