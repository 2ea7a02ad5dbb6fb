#include "actors/head/frequency_sketch.h"

#include <algorithm>

namespace lorikeet::actors {

// Mixes the bits of a hash once more, since the key's own hash may be poor.
FrequencySketch::Places FrequencySketch::places_of(uint64_t hash) {
  hash ^= hash >> 32;
  hash *= 0x9e3779b97f4a7c15ULL;
  hash ^= hash >> 29;
  Places places;
  places.line = hash % kLines;
  for (size_t row = 0; row < kRows; ++row) places.columns[row] = (hash >> (32 + 8 * row)) % kColumns;
  return places;
}

void FrequencySketch::add(uint64_t hash) {
  const Places places = places_of(hash);
  Line& line = lines_[places.line];
  const uint32_t before = estimate(hash);
  for (size_t row = 0; row < kRows && before < kMost; ++row) {
    uint8_t& counter = line.counters[row][places.columns[row]];
    if (counter == before) ++counter;  // those above it were raised by others
  }
  if (++additions_ % kAdditionsPerLine != 0) return;
  for (auto& row : lines_[next_].counters) {
    for (uint8_t& counter : row) counter /= 2;
  }
  next_ = (next_ + 1) % kLines;
}

uint32_t FrequencySketch::estimate(uint64_t hash) const {
  const Places places = places_of(hash);
  const Line& line = lines_[places.line];
  uint32_t least = kMost;
  for (size_t row = 0; row < kRows; ++row) {
    least = std::min<uint32_t>(least, line.counters[row][places.columns[row]]);
  }
  return least;
}

}  // namespace lorikeet::actors
