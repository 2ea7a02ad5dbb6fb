// Random int4 weights of every kind that checkpoints have.
#pragma once

#include <algorithm>
#include <cmath>
#include <numeric>
#include <random>

#include "kernels/int4/base/int4_weight.h"

namespace lorikeet::kernels {

struct Int4Kind {
  int32_t group = 128;      // inputs of a run; 0: runs of uneven length, multiples of 32
  bool asymmetric = false;  // zeros differ from 8
  bool act_order = false;   // inputs are permuted, and some stored inputs are padding
};

// Weights of about unit gain: x of unit variance gives y of unit variance.
inline Int4Weight random_int4(int32_t n, int32_t k, const Int4Kind& kind, std::mt19937& random) {
  Int4Weight w;
  w.n = n;
  w.k = k;
  w.x_size = k;
  std::uniform_int_distribution<int> nibble(0, 15);
  w.run_begin.push_back(0);
  while (w.run_begin.back() < k) {
    const int32_t length = kind.group > 0 ? kind.group : 32 * std::uniform_int_distribution<int32_t>(1, 9)(random);
    w.run_begin.push_back(std::min(k, w.run_begin.back() + length));
  }
  const auto entries = static_cast<size_t>(w.runs()) * static_cast<size_t>(n);
  std::uniform_real_distribution<float> scale(0.7F, 1.3F);
  for (size_t i = 0; i < entries; i++) {
    // fp16 values, as checkpoints store them
    w.scale.push_back(half_to_float(to_stored(scale(random) / (4.64F * std::sqrt(static_cast<float>(k))), Dtype::f16)));
    w.zero.push_back(kind.asymmetric ? static_cast<uint8_t>(nibble(random)) : 8);
  }
  std::uniform_int_distribution<int> byte(0, 255);
  w.q.resize(static_cast<size_t>(n) * static_cast<size_t>(k) / 2);
  for (uint8_t& q : w.q) q = static_cast<uint8_t>(byte(random));
  if (!kind.act_order) return w;

  // Every stored input takes one of x's, except about one in fifty, which is padding.
  w.permutation.resize(static_cast<size_t>(k));
  std::iota(w.permutation.begin(), w.permutation.end(), 0);
  std::shuffle(w.permutation.begin(), w.permutation.end(), random);
  const int32_t padding = k / 50;
  w.x_size = k - padding;
  for (int32_t stored = 0; stored < k; stored++) {
    int32_t& from = w.permutation[static_cast<size_t>(stored)];
    if (from < w.x_size) continue;
    from = -1;
    const auto run = std::upper_bound(w.run_begin.begin(), w.run_begin.end(), stored) - w.run_begin.begin() - 1;
    for (int32_t i = 0; i < n; i++) {
      uint8_t& q = w.q[(static_cast<size_t>(i) * static_cast<size_t>(k) + static_cast<size_t>(stored)) / 2];
      const int zero = w.zero[static_cast<size_t>(run) * static_cast<size_t>(n) + static_cast<size_t>(i)];
      q = static_cast<uint8_t>(stored % 2 == 0 ? (q & 0xf0) | zero : (q & 0x0f) | zero << 4);
    }
  }
  return w;
}

// Row `output` of the de-quantised W, in the order of the x that callers pass.
inline std::vector<double> int4_row(const Int4Weight& w, int32_t output) {
  std::vector<double> row(static_cast<size_t>(w.x_size), 0.0);
  for (int32_t r = 0; r < w.runs(); r++) {
    const size_t entry = static_cast<size_t>(r) * static_cast<size_t>(w.n) + static_cast<size_t>(output);
    for (int32_t k = w.run_begin[static_cast<size_t>(r)]; k < w.run_begin[static_cast<size_t>(r) + 1]; k++) {
      const uint8_t byte = w.q[(static_cast<size_t>(output) * static_cast<size_t>(w.k) + static_cast<size_t>(k)) / 2];
      const int q = k % 2 == 0 ? byte & 15 : byte >> 4;
      const int32_t from = w.permutation.empty() ? k : w.permutation[static_cast<size_t>(k)];
      if (from < 0) continue;
      row[static_cast<size_t>(from)] = static_cast<double>(w.scale[entry]) * (q - w.zero[entry]);
    }
  }
  return row;
}

}  // namespace lorikeet::kernels
