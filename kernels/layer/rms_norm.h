// Root-mean-square normalisation (Zhang and Sennrich, 2019), as transformers' Qwen2RMSNorm.
#pragma once

#include <cstdint>

namespace lorikeet::kernels {

// y [rows, size] = x * weight [size] / sqrt(mean(x^2) + epsilon), each row by itself. y may be x.
void rms_norm_cpu(const float* x, const float* weight, float epsilon, int32_t rows, int32_t size, float* y);

// residual [rows, size] += delta, then y = rms_norm(residual).
void add_rms_norm_cpu(float* residual, const float* delta, const float* weight, float epsilon, int32_t rows,
                      int32_t size, float* y);

}  // namespace lorikeet::kernels
