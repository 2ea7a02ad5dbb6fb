#include <algorithm>
#include <cmath>
#include <cstring>
#include <vector>

#include "kernels/paged_attention.h"

namespace lorikeet::kernels {
namespace {

// Sixteen partial sums, so that the compiler may use vectors of any width without changing the result.
float dot(const float* a, const float* b, int32_t size) {
  float sums[16] = {};
  int32_t i = 0;
  for (; i + 16 <= size; i += 16) {
    for (int lane = 0; lane < 16; ++lane) sums[lane] += a[i + lane] * b[i + lane];
  }
  for (; i < size; ++i) sums[i % 16] += a[i] * b[i];
  for (int width = 8; width > 0; width /= 2) {
    for (int lane = 0; lane < width; ++lane) sums[lane] += sums[lane + width];
  }
  return sums[0];
}

// One query head of one token; `scores` is scratch of position + 1 floats.
void attend(const KvCacheCpu& cache, const AttentionToken& token, int32_t kv_head, const float* q, float* scores,
            float* out) {
  const int32_t length = token.position + 1;
  const float scale = 1.0F / std::sqrt(static_cast<float>(cache.head_dim));
  float best = -INFINITY;
  for (int32_t p = 0; p < length; ++p) {
    const float* k = cache.keys + cache.offset(token.block_table[p / cache.block_size], kv_head, p % cache.block_size);
    scores[p] = dot(q, k, cache.head_dim) * scale;
    best = std::max(best, scores[p]);
  }
  float total = 0;
  std::memset(out, 0, static_cast<size_t>(cache.head_dim) * sizeof(float));
  for (int32_t p = 0; p < length; ++p) {
    const float weight = std::exp(scores[p] - best);
    total += weight;
    const float* v =
        cache.values + cache.offset(token.block_table[p / cache.block_size], kv_head, p % cache.block_size);
    for (int32_t i = 0; i < cache.head_dim; ++i) out[i] += weight * v[i];
  }
  for (int32_t i = 0; i < cache.head_dim; ++i) out[i] /= total;
}

}  // namespace

void store_kv_cpu(const KvCacheCpu& cache, const AttentionToken* tokens, int32_t count, const float* k, const float* v,
                  int64_t stride) {
  const size_t bytes = static_cast<size_t>(cache.head_dim) * sizeof(float);
  for (int32_t t = 0; t < count; ++t, k += stride, v += stride) {
    const int32_t block = tokens[t].block_table[tokens[t].position / cache.block_size];
    for (int32_t h = 0; h < cache.kv_heads; ++h) {
      const int64_t at = cache.offset(block, h, tokens[t].position % cache.block_size);
      std::memcpy(cache.keys + at, k + static_cast<int64_t>(h) * cache.head_dim, bytes);
      std::memcpy(cache.values + at, v + static_cast<int64_t>(h) * cache.head_dim, bytes);
    }
  }
}

void paged_attention_cpu(const KvCacheCpu& cache, const AttentionToken* tokens, int32_t count, const float* q,
                         int32_t heads, float* out, ThreadPool& pool) {
  int32_t longest = 0;
  for (int32_t t = 0; t < count; ++t) longest = std::max(longest, tokens[t].position + 1);
  const int32_t group = heads / cache.kv_heads;
  pool.parallel_for(static_cast<int64_t>(count) * heads, 1, [&](int64_t begin, int64_t end) {
    std::vector<float> scores(static_cast<size_t>(longest));
    for (int64_t i = begin; i < end; ++i) {
      const auto head = static_cast<int32_t>(i % heads);
      attend(cache, tokens[i / heads], head / group, q + i * cache.head_dim, scores.data(), out + i * cache.head_dim);
    }
  });
}

}  // namespace lorikeet::kernels
