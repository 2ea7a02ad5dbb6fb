// An unquantised weight: embedding, lm_head, or a linear layer of an fp16/bf16/fp32 checkpoint.
#pragma once

#include <cstdint>
#include <memory>

#include "kernels/base/dtype.h"

namespace lorikeet::kernels {

// W [N, K] row-major by output, of y = x W^T. The bytes belong to `owner` (a mapped file or a buffer) and may be
// unaligned.
struct DenseWeight {
  int32_t n = 0;
  int32_t k = 0;
  Dtype dtype = Dtype::f32;
  const void* data = nullptr;
  std::shared_ptr<const void> owner;

  const void* row(int32_t i) const {
    return static_cast<const unsigned char*>(data) + static_cast<size_t>(i) * static_cast<size_t>(k) * size_of(dtype);
  }
};

}  // namespace lorikeet::kernels
