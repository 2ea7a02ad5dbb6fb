// One projection of one layer on the CPU: the base product, the adapters of the batch, the bias.
#pragma once

#include <cstdint>
#include <vector>

#include "kernels/cpu/thread_pool.h"
#include "kernels/lora/lora.h"
#include "model/checkpoint/weights.h"

namespace lorikeet::model {

// y [m, outputs] = f * (x W^T + scale * B (A x)) + bias for x [m, inputs]; f where an adapter is a DoRA. In a
// row-parallel layer y is this rank's part of the sum.
void linear_cpu(const LinearWeights& linear, const std::vector<kernels::LoraGroup>& adapters, const float* x, int32_t m,
                float* y, kernels::ThreadPool& pool);

int32_t outputs_of(const LinearWeights& linear);

}  // namespace lorikeet::model
