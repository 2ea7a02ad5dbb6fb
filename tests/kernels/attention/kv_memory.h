// Paged caches for the tests of the kernels that write and read them.
#pragma once

#include <cuda_fp8.h>

#include <algorithm>
#include <cstring>
#include <string>
#include <vector>

#include "kernels/base/kv_cache.h"
#include "tests/kernels/base/cuda_test.h"

namespace lorikeet::kernels {

inline std::string kv_name(KvDtype dtype) {
  return std::string(name_of(dtype));
}

inline double kv_tolerance_of(KvDtype dtype) {
  return dtype == KvDtype::f8_e4m3 ? tests::kFp8Tolerance
         : dtype == KvDtype::f16   ? tests::kHalfTolerance
                                   : tests::kBfloat16Tolerance;
}

// Heads of `head_dim` elements as a cache of `dtype` stores them; of fp8 with their scales.
struct StoredHeads {
  std::vector<uint8_t> bytes;
  std::vector<float> scales;
};

inline StoredHeads stored_heads(const std::vector<float>& values, KvDtype dtype, int32_t head_dim) {
  StoredHeads heads;
  for (size_t i = 0; i < values.size(); i++) {
    const float v = values[i];
    if (dtype == KvDtype::f8_e4m3) {
      if (i % static_cast<size_t>(head_dim) == 0) {
        float largest = 0;
        for (int32_t d = 0; d < head_dim; d++)
          largest = std::max(largest, std::abs(values[i + static_cast<size_t>(d)]));
        heads.scales.push_back(std::isnan(v) ? NAN : largest > 0 ? largest / 448 : 1);
      }
      heads.bytes.push_back(__nv_cvt_float_to_fp8(v / heads.scales.back(), __NV_SATFINITE, __NV_E4M3));
    } else {
      const uint16_t stored = to_stored(v, dtype == KvDtype::f16 ? Dtype::f16 : Dtype::bf16);
      heads.bytes.push_back(static_cast<uint8_t>(stored & 0xff));
      heads.bytes.push_back(static_cast<uint8_t>(stored >> 8));
    }
  }
  return heads;
}

// What they are worth.
inline std::vector<float> kv_values(const StoredHeads& heads, KvDtype dtype, int32_t head_dim) {
  std::vector<float> values;
  for (size_t i = 0; i + size_of(dtype) <= heads.bytes.size(); i += size_of(dtype)) {
    if (dtype == KvDtype::f8_e4m3) {
      const __half_raw raw = __nv_cvt_fp8_to_halfraw(heads.bytes[i], __NV_E4M3);
      values.push_back(half_to_float(raw.x) * heads.scales[i / static_cast<size_t>(head_dim)]);
    } else {
      uint16_t stored = 0;
      std::memcpy(&stored, &heads.bytes[i], 2);
      values.push_back(to_value(stored, dtype == KvDtype::f16 ? Dtype::f16 : Dtype::bf16));
    }
  }
  return values;
}

// A cache in device memory.
struct DeviceCache {
  DeviceBuffer keys, values, key_scales, value_scales;

  KvCacheLayer layer(KvDtype dtype, int32_t kv_heads, int32_t block_size, int32_t head_dim) const {
    KvCacheLayer layer = {keys.data(), values.data(), dtype, kv_heads, block_size, head_dim};
    if (dtype == KvDtype::f8_e4m3) {
      layer.key_scales = key_scales.as<float>();
      layer.value_scales = value_scales.as<float>();
    }
    return layer;
  }
};

// Keys and values of several sequences in blocks dealt out at random; what no position uses is NaN.
struct PagedSequences {
  std::vector<std::vector<int32_t>> tables;  // block table of each sequence
  std::vector<float> keys, values;           // [blocks, kv_heads, block_size, head_dim], as stored
  StoredHeads stored_keys, stored_values;
  int32_t kv_heads, block_size, head_dim;

  size_t place(size_t sequence, int32_t position, int32_t kv_head) const {
    const int32_t block = tables[sequence][static_cast<size_t>(position / block_size)];
    return ((static_cast<size_t>(block) * kv_heads + kv_head) * block_size + position % block_size) * head_dim;
  }
};

inline PagedSequences random_sequences(const std::vector<int32_t>& lengths, KvDtype dtype, int32_t kv_heads,
                                       int32_t block_size, int32_t head_dim, std::mt19937& random) {
  PagedSequences s;
  s.kv_heads = kv_heads;
  s.block_size = block_size;
  s.head_dim = head_dim;
  int32_t blocks = 1;
  for (const int32_t length : lengths) blocks += (length + block_size - 1) / block_size;
  std::vector<int32_t> order(static_cast<size_t>(blocks));
  for (size_t i = 0; i < order.size(); i++) order[i] = static_cast<int32_t>(i);
  std::shuffle(order.begin(), order.end(), random);
  const size_t elements = static_cast<size_t>(blocks) * kv_heads * block_size * head_dim;
  s.keys.assign(elements, NAN);
  s.values.assign(elements, NAN);
  size_t next = 0;
  std::normal_distribution<float> normal(0, 1);
  for (size_t i = 0; i < lengths.size(); i++) {
    s.tables.emplace_back();
    for (int32_t b = 0; b * block_size < lengths[i]; b++) s.tables.back().push_back(order[next++]);
    for (int32_t p = 0; p < lengths[i]; p++) {
      for (int32_t h = 0; h < kv_heads; h++) {
        const size_t at = s.place(i, p, h);
        for (int32_t d = 0; d < head_dim; d++) {
          s.keys[at + static_cast<size_t>(d)] = normal(random);
          s.values[at + static_cast<size_t>(d)] = normal(random);
        }
      }
    }
  }
  s.stored_keys = stored_heads(s.keys, dtype, head_dim);
  s.stored_values = stored_heads(s.values, dtype, head_dim);
  s.keys = kv_values(s.stored_keys, dtype, head_dim);
  s.values = kv_values(s.stored_values, dtype, head_dim);
  return s;
}

// softmax(q k^T * scale) v over positions [0, context), in double.
inline std::vector<double> attention_of(const PagedSequences& s, size_t sequence, int32_t context, const float* q,
                                        int32_t kv_head, double scale) {
  std::vector<double> scores;
  double largest = -INFINITY;
  for (int32_t p = 0; p < context; p++) {
    const size_t at = s.place(sequence, p, kv_head);
    double score = 0;
    for (int32_t d = 0; d < s.head_dim; d++) score += static_cast<double>(q[d]) * s.keys[at + static_cast<size_t>(d)];
    scores.push_back(score * scale);
    largest = std::max(largest, scores.back());
  }
  double sum = 0;
  std::vector<double> out(static_cast<size_t>(s.head_dim));
  for (int32_t p = 0; p < context; p++) {
    const double weight = std::exp(scores[static_cast<size_t>(p)] - largest);
    sum += weight;
    const size_t at = s.place(sequence, p, kv_head);
    for (size_t d = 0; d < out.size(); d++) out[d] += weight * s.values[at + d];
  }
  for (double& x : out) x /= sum;
  return out;
}

}  // namespace lorikeet::kernels
