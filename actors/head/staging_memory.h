// Memory that an adapter's slices are written to before they are sealed for the ranks, and a spare piece of it that is made
// ready ahead of time: the kernel takes longer to provide zeroed pages than packing the slices takes.
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

// Mapped for writing. populate() fetches pages before they are written to, since the first touch of a page for which there is
// no memory would end the process. What was never written is 0.
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

  // Fetches the pages of a part. Fails where the host has no more memory. Threads: any.
  Result<void> populate(uint64_t offset, uint64_t bytes) const;
  // Fetches all pages, by `threads` threads, until `stops` becomes true.
  Result<void> populate_all(int threads, const std::atomic<bool>* stops = nullptr);

  // A part has been written. Once most of what lies around it has, too, its pages are unmapped here, but stay in the memory.
  // Piece by piece beside the packing that costs little; all at once at the end it would take a good part of the
  // packing's time. Threads: any.
  void written(uint64_t offset, uint64_t bytes) const;

  // Cuts it to its first `bytes`. False: the system refuses.
  bool shorten(uint64_t bytes);

  // Makes it read-only for everybody, by `threads` threads.
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

// Keeps at most one piece ready, as large as the last adapter. Threads: any.
class SpareStagingMemory {
 public:
  explicit SpareStagingMemory(uint64_t most) : most_(most) {}  // bytes

  // Gives exactly `bytes`, with the pages fetched so far. Nothing: there is none, or a smaller one, which is dropped.
  std::optional<StagingMemory> take(uint64_t bytes);

  // Makes one, unless one as large is there. Does nothing above the bound or where memory is short.
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
