// Memory that an adapter's slices are written to before they are sealed for the ranks, and some of it that is ready before
// anybody asks: the kernel takes longer to give small pages, zeroed, than the slices take to be packed.
#pragma once

#include <atomic>
#include <condition_variable>
#include <cstdint>
#include <memory>
#include <mutex>
#include <optional>
#include <utility>

#include "kernels/base/error.h"
#include "kernels/base/resident_memory.h"

namespace lorikeet::actors {

// Mapped for writing. Its pages come by populate(), before they are written to: a page that cannot be had ends the process
// where it is first touched. What was never written is 0.
class StagingMemory {
 public:
  // Nothing where the system has no such memory, or where it would leave too few descriptors to others.
  static std::optional<StagingMemory> make(uint64_t bytes);
  ~StagingMemory() { unmap(1); }
  StagingMemory(StagingMemory&& other) noexcept
      : region_(std::move(other.region_)),
        data_(std::exchange(other.data_, nullptr)),
        bytes_(other.bytes_),
        chunks_(std::move(other.chunks_)) {}
  StagingMemory& operator=(StagingMemory&& other) noexcept {
    std::swap(region_, other.region_);
    std::swap(data_, other.data_);
    std::swap(bytes_, other.bytes_);
    std::swap(chunks_, other.chunks_);
    return *this;
  }

  uint8_t* data() const { return data_; }
  uint64_t bytes() const { return bytes_; }

  // The pages of a part of it. Fails where the host has no more memory. Threads: any.
  Result<void> populate(uint64_t offset, uint64_t bytes) const;
  // The same of all, by so many threads; of no more where `stops` has become true.
  Result<void> populate_all(int threads, const std::atomic<bool>* stops = nullptr);

  // A part of it has been written. Once most that lies around it has, too, its pages leave this mapping, but not the
  // memory: beside what else its threads do that costs little, and at the end, with all at once, a good part of a
  // packing. Threads: any.
  void written(uint64_t offset, uint64_t bytes) const;

  // Gives back what lies behind. False: the system does not take it.
  bool shorten(uint64_t bytes);

  // For everybody to read, and for nobody to write any more. By so many threads.
  Result<kernels::ResidentMemory> seal(int threads) &&;

 private:
  static constexpr uint64_t kChunk = 1 << 20;
  struct Chunk {
    std::atomic<bool> populated{false};
    std::atomic<bool> left{false};  // this mapping, and may have come back
    std::atomic<uint64_t> written{0};
  };

  StagingMemory(kernels::ResidentMemory region, uint8_t* data, uint64_t bytes);
  uint64_t chunks() const;
  uint64_t chunk_bytes(uint64_t chunk) const;
  void leave(uint64_t chunk) const;
  void unmap(int threads);

  kernels::ResidentMemory region_;
  uint8_t* data_;  // null: moved from, or not mapped any more
  uint64_t bytes_;
  std::unique_ptr<Chunk[]> chunks_;
};

// At most one, of as many bytes as the adapter before it took. Threads: any.
class SpareStagingMemory {
 public:
  explicit SpareStagingMemory(uint64_t most) : most_(most) {}  // bytes

  // Of exactly so many bytes, with the pages that it has got by now. Nothing: there is none, or a smaller one, which goes.
  std::optional<StagingMemory> take(uint64_t bytes);

  // Makes one, unless there is one that is as large. Nothing comes of it above the bound and where memory is short.
  void prepare(uint64_t bytes, int threads);

  uint64_t bytes() const;  // of what is there

 private:
  const uint64_t most_;
  mutable std::mutex mutex_;
  std::condition_variable prepared_;
  bool preparing_ = false;
  std::atomic<bool> wanted_{false};  // what is being prepared
  std::optional<StagingMemory> memory_;
};

}  // namespace lorikeet::actors
