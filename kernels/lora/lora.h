// LoRA over a batch (Hu et al., 2021): y += scale * B (A x), with another adapter for every row if need be.
#pragma once

#include <cstdint>
#include <vector>

#include "kernels/cpu/thread_pool.h"

namespace lorikeet::kernels {

// One adapter's pair for one projection, float32, true rank.
struct LoraWeights {
  const float* a = nullptr;            // [rank, inputs]
  const float* b = nullptr;            // [rank, outputs]: transposed against PEFT's, so that outputs are vectors
  const float* dora_factor = nullptr;  // [outputs], DoRA; null otherwise
  int32_t rank = 0;
  int32_t inputs = 0;
  int32_t outputs = 0;
  float scale = 0;
};

// The rows of a batch that take one adapter.
struct LoraGroup {
  LoraWeights weights;
  std::vector<int32_t> rows;
};

// For every row of every group: y[row] += scale * B (A x[row]), then y[row] *= dora_factor where there is one.
// x and y rows are x_stride and y_stride floats apart; all groups have the same outputs. Groups must not share rows.
// A row's result has the same bits whatever else is in the batch.
void lora_cpu(const std::vector<LoraGroup>& groups, const float* x, int64_t x_stride, float* y, int64_t y_stride,
              ThreadPool& pool);

// The plain version, the oracle of the others.
void lora_plain(const std::vector<LoraGroup>& groups, const float* x, int64_t x_stride, float* y, int64_t y_stride);

}  // namespace lorikeet::kernels
