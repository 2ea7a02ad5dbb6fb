// Rotary position embedding (Su et al., 2021), halves rotated against each other as transformers' apply_rotary_pos_emb,
// with YaRN (Peng et al., 2023) and Qwen v1's dynamic NTK base and log-n scaling.
#pragma once

#include <cstdint>
#include <vector>

namespace lorikeet::kernels {

struct YarnParameters {
  double factor = 1;
  double original_max_position = 0;  // 0: no YaRN
  double beta_fast = 32, beta_slow = 1;
  bool truncate = true;  // the ramp begins and ends at whole dimensions
};

// inv_freq [head_dim / 2]: base^(-2i / head_dim), with YaRN blended towards 1 / factor of it for the slow dimensions.
std::vector<float> rope_inverse_frequencies(int32_t head_dim, double base, const YarnParameters& yarn = {});

// Qwen v1: the base for a sequence whose prompt has `prompt_size` tokens, of a model trained on `trained_length`.
double dynamic_ntk_base(double base, int32_t head_dim, int32_t prompt_size, int32_t trained_length);

// Qwen v1: what the query at `position` (from 0) is multiplied by, ln(position + 1) / ln(trained_length), at least 1.
float log_n_factor(int32_t position, int32_t trained_length);

// cos_sin [head_dim]: cosines of position * inv_freq, then sines, both times `factor` (YaRN's attention factor).
void rope_angles_cpu(int32_t position, const float* inv_freq, int32_t head_dim, float factor, float* cos_sin);

// Rotates each of the `heads` vectors of x [heads, head_dim] in place.
void rope_cpu(float* x, int32_t heads, int32_t head_dim, const float* cos_sin);

}  // namespace lorikeet::kernels
