#include "kernels/base/span_allocator.h"

#include <glog/logging.h>

#include <algorithm>
#include <iterator>

namespace lorikeet::kernels {

SpanAllocator::SpanAllocator(uint64_t capacity, uint64_t alignment)
    : capacity_(capacity / alignment * alignment), alignment_(alignment) {
  CHECK_EQ(alignment & (alignment - 1), 0U);
  if (capacity_ > 0) free_[0] = capacity_;
}

std::optional<ByteSpan> SpanAllocator::allocate(uint64_t bytes) {
  if (bytes > capacity_) return std::nullopt;
  const uint64_t rounded = std::max(alignment_, (bytes + alignment_ - 1) / alignment_ * alignment_);
  auto best = free_.end();
  for (auto range = free_.begin(); range != free_.end(); ++range) {
    if (range->second >= rounded && (best == free_.end() || range->second < best->second)) best = range;
  }
  if (best == free_.end()) return std::nullopt;
  const ByteSpan span{best->first, rounded};
  if (best->second > rounded) free_[best->first + rounded] = best->second - rounded;
  free_.erase(best);
  used_ += rounded;
  return span;
}

bool SpanAllocator::take(const ByteSpan& span) {
  if (span.bytes == 0 || span.offset % alignment_ != 0 || span.bytes % alignment_ != 0) return false;
  auto range = free_.upper_bound(span.offset);
  if (range == free_.begin()) return false;
  --range;
  const auto [begin, bytes] = *range;
  const uint64_t before = span.offset - begin;
  if (before > bytes || span.bytes > bytes - before) return false;
  const uint64_t after = bytes - before - span.bytes;
  if (before > 0) {
    range->second = before;
  } else {
    free_.erase(range);
  }
  if (after > 0) free_[span.offset + span.bytes] = after;
  used_ += span.bytes;
  return true;
}

void SpanAllocator::free(const ByteSpan& span) {
  CHECK_LE(span.offset + span.bytes, capacity_);
  auto next = free_.lower_bound(span.offset);
  CHECK(next == free_.end() || span.offset + span.bytes <= next->first) << "given back twice";
  uint64_t offset = span.offset;
  uint64_t bytes = span.bytes;
  if (next != free_.end() && next->first == offset + bytes) {
    bytes += next->second;
    next = free_.erase(next);
  }
  if (next != free_.begin()) {
    const auto previous = std::prev(next);
    CHECK_LE(previous->first + previous->second, offset) << "given back twice";
    if (previous->first + previous->second == offset) {
      offset = previous->first;
      bytes += previous->second;
      free_.erase(previous);
    }
  }
  free_[offset] = bytes;
  used_ -= span.bytes;
}

uint64_t SpanAllocator::longest_free() const {
  uint64_t longest = 0;
  for (const auto& [offset, bytes] : free_) longest = std::max(longest, bytes);
  return longest;
}

}  // namespace lorikeet::kernels
