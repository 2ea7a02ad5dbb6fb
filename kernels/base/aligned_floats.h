// Floats that begin on a cache line.
#pragma once

#include <glog/logging.h>

#include <cstddef>
#include <cstdlib>
#include <memory>
#include <optional>

namespace lorikeet::kernels {

inline constexpr size_t kCacheLine = 64;

// A fixed number of floats, not initialised: pages that nobody touches cost nothing.
class AlignedFloats {
 public:
  AlignedFloats() = default;
  explicit AlignedFloats(size_t count) : data_(take(count)), size_(count) {
    CHECK(data_ != nullptr) << "no memory for " << count << " floats";
  }

  // Nothing where there is no memory.
  static std::optional<AlignedFloats> allocate(size_t count) {
    AlignedFloats floats;
    floats.data_.reset(take(count));
    floats.size_ = count;
    if (floats.data_ == nullptr) return std::nullopt;
    return floats;
  }

  float* data() { return data_.get(); }
  const float* data() const { return data_.get(); }
  size_t size() const { return size_; }

 private:
  struct Free {
    void operator()(float* p) const { std::free(p); }
  };
  static float* take(size_t count) {
    const size_t bytes = (count * sizeof(float) / kCacheLine + 1) * kCacheLine;
    return static_cast<float*>(std::aligned_alloc(kCacheLine, bytes));
  }

  std::unique_ptr<float, Free> data_;
  size_t size_ = 0;
};

}  // namespace lorikeet::kernels
