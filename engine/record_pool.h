// Keeps records of one type side by side in memory, in pages of 2 MiB: an engine's step visits thousands of sequences, and
// with a hundred thousand adapters none is in a cache when a request comes for it.
#pragma once

#include <array>
#include <cstddef>
#include <memory>
#include <utility>
#include <vector>

#include "engine/huge_pages.h"

namespace lorikeet::engine {

template <class Record>
class RecordPool {
 public:
  struct Deleter {
    RecordPool* pool = nullptr;
    void operator()(Record* record) const {
      std::destroy_at(record);
      pool->free_.push_back(record);
    }
  };
  using Pointer = std::unique_ptr<Record, Deleter>;  // the pool outlives it

  RecordPool() = default;
  RecordPool(const RecordPool&) = delete;
  RecordPool& operator=(const RecordPool&) = delete;

  template <class... Args>
  Pointer make(Args&&... args) {
    if (free_.empty()) grow();
    auto* place = static_cast<Record*>(free_.back());
    free_.pop_back();
    return Pointer(std::construct_at(place, std::forward<Args>(args)...), Deleter{this});
  }

 private:
  struct Place {
    alignas(Record) std::array<std::byte, sizeof(Record)> bytes;
  };
  static constexpr size_t kChunk = (size_t{2} << 20) / sizeof(Place) + 1;  // records

  void grow() {
    HugeVector<Place>& chunk = chunks_.emplace_back(kChunk);
    for (size_t i = kChunk; i-- > 0;) free_.push_back(chunk[i].bytes.data());
  }

  std::vector<HugeVector<Place>> chunks_;
  std::vector<void*> free_;  // the last one freed is the next one used
};

}  // namespace lorikeet::engine
