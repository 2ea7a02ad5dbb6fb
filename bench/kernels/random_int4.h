// Random int4 weights, group size 128.
#pragma once

#include <random>

#include "kernels/int4/base/int4_weight.h"

namespace lorikeet::bench {

inline kernels::Int4Weight random_int4(int32_t n, int32_t k) {
  std::mt19937 random(1);
  kernels::Int4Weight w;
  w.n = n;
  w.k = w.x_size = k;
  w.q.resize(static_cast<size_t>(n) * static_cast<size_t>(k) / 2);
  for (uint8_t& byte : w.q) byte = static_cast<uint8_t>(random());
  for (int32_t at = 0; at <= k; at += 128) w.run_begin.push_back(at);
  w.scale.assign(static_cast<size_t>(w.runs()) * static_cast<size_t>(n), 0.01F);
  w.zero.assign(w.scale.size(), 8);
  return w;
}

// Bytes that a product reads of it.
inline size_t bytes_of(const kernels::Int4Weight& w) {
  return w.q.size() + w.scale.size() * sizeof(float) + w.zero.size();
}

}  // namespace lorikeet::bench
