#include <cmath>

#include "kernels/layer/rms_norm.h"

namespace lorikeet::kernels {

void rms_norm_cpu(const float* x, const float* weight, float epsilon, int32_t rows, int32_t size, float* y) {
  for (int32_t r = 0; r < rows; ++r, x += size, y += size) {
    double squares = 0;
    for (int32_t i = 0; i < size; ++i) squares += static_cast<double>(x[i]) * x[i];
    const auto factor = static_cast<float>(1.0 / std::sqrt(squares / size + epsilon));
    for (int32_t i = 0; i < size; ++i) y[i] = x[i] * factor * weight[i];
  }
}

void add_rms_norm_cpu(float* residual, const float* delta, const float* weight, float epsilon, int32_t rows,
                      int32_t size, float* y) {
  const int64_t count = static_cast<int64_t>(rows) * size;
  for (int64_t i = 0; i < count; ++i) residual[i] += delta[i];
  rms_norm_cpu(residual, weight, epsilon, rows, size, y);
}

}  // namespace lorikeet::kernels
