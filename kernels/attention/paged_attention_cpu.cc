#include <algorithm>
#include <atomic>
#include <cmath>
#include <cstring>
#include <vector>

#include "kernels/attention/attention_simd.h"
#include "kernels/attention/paged_attention.h"
#include "kernels/base/aligned_floats.h"

namespace lorikeet::kernels {
namespace {

// One query head of one token; `scores` is scratch of position + 1 floats.
void attend_plain(const KvCacheCpu& cache, const AttentionToken& token, int32_t kv_head, const float* q, float* scores,
                  float* out) {
  const int32_t length = token.position + 1, head_dim = cache.head_dim;
  const float scale = 1.0F / std::sqrt(static_cast<float>(head_dim));
  float best = -INFINITY;
  for (int32_t p = 0; p < length; ++p) {
    const float* k = cache.keys + cache.offset(token.block_table[p / cache.block_size], kv_head) + p % cache.block_size;
    float sum = 0;
    for (int32_t d = 0; d < head_dim; ++d) sum += q[d] * k[static_cast<int64_t>(d) * cache.block_size];
    scores[p] = sum * scale;
    best = std::max(best, scores[p]);
  }
  float total = 0;
  std::fill_n(out, head_dim, 0.0F);
  for (int32_t p = 0; p < length; ++p) {
    const float weight = std::exp(scores[p] - best);
    total += weight;
    const float* v = cache.values + cache.offset(token.block_table[p / cache.block_size], kv_head) +
                     static_cast<int64_t>(p % cache.block_size) * head_dim;
    for (int32_t d = 0; d < head_dim; ++d) out[d] += weight * v[d];
  }
  for (int32_t d = 0; d < head_dim; ++d) out[d] /= total;
}

// Neighbouring positions of one sequence, seen from one KV head: rows [first, first + rows) of its query vectors,
// counted over the tokens and within a token over the heads that share the KV head.
struct Task {
  int32_t first_token = 0;
  int32_t kv_head = 0;
  int32_t first = 0;
  int32_t rows = 0;
};

std::vector<Task> tasks_of(const AttentionToken* tokens, int32_t count, int32_t kv_heads, int32_t group) {
  std::vector<Task> tasks;
  for (int32_t begin = 0, end = 0; begin < count; begin = end) {
    end = begin + 1;
    while (end < count && tokens[end].block_table == tokens[begin].block_table &&
           tokens[end].position == tokens[end - 1].position + 1) {
      ++end;
    }
    const int32_t rows = (end - begin) * group;
    for (int32_t kv_head = 0; kv_head < kv_heads; ++kv_head) {
      for (int32_t first = 0; first < rows; first += kAttentionRows)
        tasks.push_back({begin, kv_head, first, std::min(kAttentionRows, rows - first)});
    }
  }
  return tasks;
}

}  // namespace

void store_kv_cpu(const KvCacheCpu& cache, const AttentionToken* tokens, int32_t count, const float* k,
                  const float* v) {
  for (int32_t t = 0; t < count; ++t) {
    const int32_t block = tokens[t].block_table[tokens[t].position / cache.block_size];
    const int32_t in_block = tokens[t].position % cache.block_size;
    for (int32_t h = 0; h < cache.kv_heads; ++h, k += cache.head_dim, v += cache.head_dim) {
      const int64_t at = cache.offset(block, h);
      float* keys = cache.keys + at + in_block;
      for (int64_t d = 0; d < cache.head_dim; ++d) keys[d * cache.block_size] = k[d];
      std::memcpy(cache.values + at + static_cast<int64_t>(in_block) * cache.head_dim, v,
                  static_cast<size_t>(cache.head_dim) * sizeof(float));
    }
  }
}

void paged_attention_plain(const KvCacheCpu& cache, const AttentionToken* tokens, int32_t count, const float* q,
                           int32_t heads, float* out) {
  const int32_t group = heads / cache.kv_heads;
  std::vector<float> scores;
  for (int32_t t = 0; t < count; ++t) {
    scores.resize(std::max(scores.size(), static_cast<size_t>(tokens[t].position) + 1));
    for (int32_t h = 0; h < heads; ++h, q += cache.head_dim, out += cache.head_dim)
      attend_plain(cache, tokens[t], h / group, q, scores.data(), out);
  }
}

void paged_attention_cpu(const KvCacheCpu& cache, const AttentionToken* tokens, int32_t count, const float* q,
                         int32_t heads, float* out, ThreadPool& pool) {
  static AttendLoop* const attend = attend_loop(best_cpu_isa());
  if (attend == nullptr) return paged_attention_plain(cache, tokens, count, q, heads, out);
  const int32_t group = heads / cache.kv_heads;
  const std::vector<Task> tasks = tasks_of(tokens, count, cache.kv_heads, group);
  // Tasks differ in length: threads take the next one when they have done one, the longest first.
  std::atomic<int64_t> next{static_cast<int64_t>(tasks.size())};
  pool.parallel_for(std::min<int64_t>(pool.size(), next), 1, [&](int64_t, int64_t) {
    AlignedFloats scratch(static_cast<size_t>(kAttentionScratch));
    for (int64_t i = --next; i >= 0; i = --next) {
      const Task& task = tasks[static_cast<size_t>(i)];
      AttentionTile tile;
      tile.cache = &cache;
      tile.block_table = tokens[task.first_token].block_table;
      tile.kv_head = task.kv_head;
      tile.rows = task.rows;
      for (int32_t r = 0; r < task.rows; ++r) {
        const int32_t token = task.first_token + (task.first + r) / group;
        const int32_t head = task.kv_head * group + (task.first + r) % group;
        const int64_t at = (static_cast<int64_t>(token) * heads + head) * cache.head_dim;
        tile.q[r] = q + at;
        tile.out[r] = out + at;
        tile.position[r] = tokens[token].position;
      }
      attend(tile, scratch.data());
    }
  });
}

AttendLoop* attend_loop(CpuIsa isa) {
  return loop_for<AttendLoop>(isa, [](auto set) { return attend_for<set()>(); });
}

}  // namespace lorikeet::kernels
