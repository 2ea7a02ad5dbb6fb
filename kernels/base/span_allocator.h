// Divides a range of bytes that somebody else owns: best fit, neighbours that become free are joined.
// Threads: one at a time.
#pragma once

#include <cstdint>
#include <map>
#include <optional>

namespace lorikeet::kernels {

struct ByteSpan {
  uint64_t offset = 0;
  uint64_t bytes = 0;
};

class SpanAllocator {
 public:
  // Of `capacity` bytes. Spans begin at multiples of `alignment`, a power of two.
  SpanAllocator(uint64_t capacity, uint64_t alignment);

  // A span of at least `bytes` bytes; none where no free range is long enough.
  std::optional<ByteSpan> allocate(uint64_t bytes);

  // A span that allocate gave out in an earlier life of the range. False: it is none, or not wholly free.
  bool take(const ByteSpan& span);

  // `span` came from allocate or take and is given back once.
  void free(const ByteSpan& span);

  uint64_t capacity() const { return capacity_; }
  uint64_t used() const { return used_; }
  uint64_t longest_free() const;

 private:
  uint64_t capacity_;
  uint64_t alignment_;
  uint64_t used_ = 0;
  std::map<uint64_t, uint64_t> free_;  // offset -> bytes
};

}  // namespace lorikeet::kernels
