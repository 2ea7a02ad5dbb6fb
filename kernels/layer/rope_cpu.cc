#include <algorithm>
#include <cmath>
#include <numbers>

#include "kernels/layer/rope.h"

namespace lorikeet::kernels {

std::vector<float> rope_inverse_frequencies(int32_t head_dim, double base, const YarnParameters& yarn) {
  const int32_t half = head_dim / 2;
  std::vector<float> result(static_cast<size_t>(half));
  const auto dimension_of = [&](double rotations) {
    return head_dim * std::log(yarn.original_max_position / (rotations * 2 * std::numbers::pi)) / (2 * std::log(base));
  };
  double low = 0, high = 0;
  const bool scaled = yarn.original_max_position > 0;
  if (scaled) {
    low = dimension_of(yarn.beta_fast);
    high = dimension_of(yarn.beta_slow);
    if (yarn.truncate) {
      low = std::floor(low);
      high = std::ceil(high);
    }
    low = std::max(low, 0.0);
    high = std::min(high, head_dim - 1.0);
    if (low == high) high += 0.001;
  }
  for (int32_t i = 0; i < half; ++i) {
    const double frequency = std::pow(base, -2.0 * i / head_dim);
    const double ramp = scaled ? std::clamp((i - low) / (high - low), 0.0, 1.0) : 0.0;
    result[static_cast<size_t>(i)] = static_cast<float>(frequency / yarn.factor * ramp + frequency * (1 - ramp));
  }
  return result;
}

double dynamic_ntk_base(double base, int32_t head_dim, int32_t prompt_size, int32_t trained_length) {
  const double doublings = std::ceil(std::log2(static_cast<double>(prompt_size) / trained_length) + 1);
  const double alpha = std::max(std::exp2(doublings) - 1, 1.0);
  return base * std::pow(alpha, static_cast<double>(head_dim) / (head_dim - 2));
}

float log_n_factor(int32_t position, int32_t trained_length) {
  if (position + 1 <= trained_length) return 1;
  return static_cast<float>(std::log(static_cast<double>(position) + 1) /
                            std::log(static_cast<double>(trained_length)));
}

void rope_angles_cpu(int32_t position, const float* inv_freq, int32_t head_dim, float factor, float* cos_sin) {
  const int32_t half = head_dim / 2;
  for (int32_t i = 0; i < half; ++i) {
    const float angle = static_cast<float>(position) * inv_freq[i];
    cos_sin[i] = std::cos(angle) * factor;
    cos_sin[half + i] = std::sin(angle) * factor;
  }
}

void rope_cpu(float* x, int32_t heads, int32_t head_dim, const float* cos_sin) {
  const int32_t half = head_dim / 2;
  const float* cosine = cos_sin;
  const float* sine = cos_sin + half;
  for (int32_t h = 0; h < heads; ++h, x += head_dim) {
    for (int32_t i = 0; i < half; ++i) {
      const float a = x[i], b = x[half + i];
      x[i] = a * cosine[i] - b * sine[i];
      x[half + i] = b * cosine[i] + a * sine[i];
    }
  }
}

}  // namespace lorikeet::kernels
