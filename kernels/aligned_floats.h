// Floats that begin on a cache line.
#pragma once

#include <glog/logging.h>

#include <cstddef>
#include <cstdlib>
#include <memory>

namespace lorikeet::kernels {

inline constexpr size_t kCacheLine = 64;

// A fixed number of floats, not initialised: pages that nobody touches cost nothing.
class AlignedFloats {
 public:
  AlignedFloats() = default;
  explicit AlignedFloats(size_t count) : size_(count) {
    if (count == 0) return;
    const size_t bytes = (count * sizeof(float) + kCacheLine - 1) / kCacheLine * kCacheLine;
    data_.reset(static_cast<float*>(std::aligned_alloc(kCacheLine, bytes)));
    CHECK(data_ != nullptr) << "no memory for " << bytes << " bytes";
  }

  float* data() { return data_.get(); }
  const float* data() const { return data_.get(); }
  size_t size() const { return size_; }

 private:
  struct Free {
    void operator()(float* p) const { std::free(p); }
  };
  std::unique_ptr<float, Free> data_;
  size_t size_ = 0;
};

}  // namespace lorikeet::kernels
