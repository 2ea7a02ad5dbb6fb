// What the CPU's products have in common: where their activations are put, and how they are shared out.
#pragma once

#include <cstdint>

#include "kernels/base/aligned_floats.h"
#include "kernels/cpu/thread_pool.h"

namespace lorikeet::kernels {

// A product's activations and results. Rows of x begin on cache lines, are x_stride floats apart and have zeros between
// their end and the next multiple of 16.
struct ProductRows {
  const float* x = nullptr;
  int64_t x_stride = 0;
  int32_t m = 0;
  float* y = nullptr;  // [m, outputs], rows y_stride apart
  int64_t y_stride = 0;
};

// Outputs that a thread's part of a product begins at a multiple of.
inline constexpr int64_t kProductGrain = 8;

// Activations as ProductRows wants them: m rows of k floats.
class ProductInputs {
 public:
  ProductInputs(int32_t m, int32_t k)
      : k_(k), stride_((k + 1023) / 1024 * 1024 + 80), floats_(static_cast<size_t>(m) * static_cast<size_t>(stride_)) {}

  // Row j, and zeros behind it up to the next multiple of 16. Rows are apart by no multiple of the cache's period, so
  // that those of a tile do not push each other out.
  float* row(int32_t j) {
    float* to = floats_.data() + j * stride_;
    for (int64_t i = k_; i % 16 != 0; ++i) to[i] = 0;
    return to;
  }
  const float* data() const { return floats_.data(); }
  int64_t stride() const { return stride_; }

 private:
  int32_t k_;
  int64_t stride_;
  AlignedFloats floats_;
};

// Calls product(n_begin, n_end) on the pool over outputs [0, n) of a product with m rows and k inputs.
template <class Product>
void share_out_product(int64_t n, int32_t k, int32_t m, ThreadPool& pool, const Product& product) {
  // A part of fewer multiplications than this costs less than waking a thread.
  constexpr int64_t kPartMultiplications = 1 << 19;
  const int64_t per_grain = kProductGrain * k * m;
  const int64_t grain = kProductGrain * (1 + kPartMultiplications / (per_grain + 1));
  pool.parallel_for(n, grain, product);
}

}  // namespace lorikeet::kernels
