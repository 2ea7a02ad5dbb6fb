// Projections of one layer on the CPU: the base product, the adapters of the batch, the bias.
#pragma once

#include <cstdint>
#include <span>
#include <vector>

#include "kernels/cpu/thread_pool.h"
#include "kernels/lora/lora.h"
#include "model/checkpoint/weights.h"

namespace lorikeet::model {

// A projection, and where it puts its outputs.
struct LinearCall {
  const LinearWeights* linear = nullptr;
  std::vector<kernels::LoraGroup> adapters;
  float* y = nullptr;  // [m, outputs]
};

// Of each call: y = f * (x W^T + scale * B (A x)) + bias for one x [m, inputs] of all; f where an adapter is a DoRA. In a
// row-parallel layer y is this rank's part of the sum. The int4 products are one loop of the pool; int8: they round x to
// 8 bits, which nothing else does.
void linear_cpu(std::span<const LinearCall> calls, const float* x, int32_t m, bool int8, kernels::ThreadPool& pool);

int32_t outputs_of(const LinearWeights& linear);

}  // namespace lorikeet::model
