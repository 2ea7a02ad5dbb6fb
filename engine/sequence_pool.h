// The engine's sequences, side by side in memory: a step visits thousands of them.
#pragma once

#include <array>
#include <cstddef>
#include <memory>
#include <utility>
#include <vector>

#include "engine/huge_pages.h"
#include "engine/sequence.h"

namespace lorikeet::engine {

class SequencePool {
 public:
  struct Deleter {
    SequencePool* pool = nullptr;
    void operator()(Sequence* sequence) const {
      std::destroy_at(sequence);
      pool->free_.push_back(sequence);
    }
  };
  using Pointer = std::unique_ptr<Sequence, Deleter>;  // the pool outlives it

  template <class... Args>
  Pointer make(Args&&... args) {
    if (free_.empty()) grow();
    auto* place = static_cast<Sequence*>(free_.back());
    free_.pop_back();
    return Pointer(std::construct_at(place, std::forward<Args>(args)...), Deleter{this});
  }

 private:
  struct Place {
    alignas(Sequence) std::array<std::byte, sizeof(Sequence)> bytes;
  };
  static constexpr size_t kChunk = (size_t{2} << 20) / sizeof(Place) + 1;  // sequences

  void grow() {
    HugeVector<Place>& chunk = chunks_.emplace_back(kChunk);
    for (size_t i = kChunk; i-- > 0;) free_.push_back(chunk[i].bytes.data());
  }

  std::vector<HugeVector<Place>> chunks_;
  std::vector<void*> free_;  // the last one freed is the next one used
};

}  // namespace lorikeet::engine
