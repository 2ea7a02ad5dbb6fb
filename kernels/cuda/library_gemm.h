// Dense matrix products through cuBLASLt, for many tokens at once. Few tokens go through
// kernels/dense/dense_gemm_cuda.h, whose results do not depend on how many they are.
#pragma once

#include <cstdint>
#include <memory>

#include "kernels/base/device.h"
#include "kernels/base/dtype.h"

namespace lorikeet::kernels {

// out [m, n] = x [m, k] W^T, accumulated in float. All pointers are to device memory, 16-byte aligned; rows are
// contiguous.
struct LibraryGemmArgs {
  const void* x = nullptr;
  int64_t x_stride = 0;          // elements between rows
  const void* weight = nullptr;  // [n, k]
  Dtype dtype = Dtype::f16;      // of x and weight: F16 or BF16
  void* out = nullptr;
  int64_t out_stride = 0;        // elements between rows
  Dtype out_dtype = Dtype::f16;  // `dtype` or F32
  int32_t m = 0, n = 0, k = 0;
};

// Owns the library's handle and workspace. An algorithm is chosen once per shape, with m rounded up to a class, and
// kept; sums that are split over blocks are joined in a fixed order. Threads: one at a time, on one stream (the
// workspace is shared by successive products).
class LibraryGemm {
 public:
  static Result<LibraryGemm> make();
  LibraryGemm(LibraryGemm&&) noexcept;
  LibraryGemm& operator=(LibraryGemm&&) noexcept;
  ~LibraryGemm();

  // Chooses an algorithm on the first call for a shape: not to be first called while a graph is captured.
  void run(const LibraryGemmArgs& args, const Stream& stream);

 private:
  struct Impl;
  explicit LibraryGemm(std::unique_ptr<Impl> impl);
  std::unique_ptr<Impl> impl_;
};

}  // namespace lorikeet::kernels
