// Attention over a vector type V (kernels/cpu/simd.h): a running softmax (Milakov and Gimelshein, 2018) over
// chunks of kAttentionChunk positions that begin at multiples of it, whatever the batch, so that a query's result
// depends on nothing but its own sequence.
#include "kernels/attention/attention_simd.h"

#include "kernels/cpu/exponential_simd.h"
#include "kernels/cpu/product_simd.h"
#include "kernels/cpu/simd.h"

namespace lorikeet::kernels {
namespace {

// The running softmax of a tile's rows. scores [kAttentionRows, kAttentionChunk] of the present chunk become weights;
// sums [kAttentionRows] vectors: lane i adds the weights of positions i, i + lanes, ...
template <class V>
struct AttentionState {
  const AttentionTile& tile;
  float* scores;
  float* sums;
  float best[kAttentionRows];
};

// scores of NT neighbouring vectors of positions and MT rows; keys[t] is where the first dimension of vector t is.
template <class V, int NT, int MT>
inline void score_vectors(const AttentionState<V>& state, const float* const (&keys)[V::kScoreVectors],
                          const int32_t (&to)[V::kScoreVectors], const int32_t (&lanes)[V::kScoreVectors],
                          int64_t row) {
  const KvCacheCpu& cache = *state.tile.cache;
  typename V::F sums[NT][MT];
  for (int t = 0; t < NT; ++t) {
    for (int j = 0; j < MT; ++j) sums[t][j] = V::zero();
  }
  for (int64_t d = 0; d < cache.head_dim; ++d) {
    typename V::F k[NT];
    for (int t = 0; t < NT; ++t) k[t] = V::load(keys[t] + d * cache.block_size);
    for (int j = 0; j < MT; ++j) {
      const typename V::F q = V::set(state.tile.q[row + j][d]);
      for (int t = 0; t < NT; ++t) sums[t][j] = V::fma(q, k[t], sums[t][j]);
    }
  }
  for (int j = 0; j < MT; ++j) {
    for (int t = 0; t < NT; ++t)
      V::store_first(state.scores + (row + j) * kAttentionChunk + to[t], sums[t][j], lanes[t]);
  }
}

template <class V, int NT>
inline void score_rows(const AttentionState<V>& state, const float* const (&keys)[V::kScoreVectors],
                       const int32_t (&to)[V::kScoreVectors], const int32_t (&lanes)[V::kScoreVectors]) {
  constexpr int kRows = V::kLanes == 16 ? 6 : 4;
  for_tiles<kRows>(0, state.tile.rows,
                   [&](auto rows, int64_t row) { score_vectors<V, NT, rows()>(state, keys, to, lanes, row); });
}

// q k of positions [begin, end), not scaled.
template <class V>
inline void score_chunk(const AttentionState<V>& state, int32_t begin, int32_t end) {
  const KvCacheCpu& cache = *state.tile.cache;
  const float* keys[V::kScoreVectors];
  int32_t to[V::kScoreVectors], lanes[V::kScoreVectors];
  int count = 0;
  for (int32_t p = begin; p < end;) {
    const int32_t in_block = p % cache.block_size;
    int32_t size = cache.block_size - in_block < end - p ? cache.block_size - in_block : end - p;
    if (size > V::kLanes) size = V::kLanes;
    keys[count] =
        cache.keys + cache.offset(state.tile.block_table[p / cache.block_size], state.tile.kv_head) + in_block;
    to[count] = p - begin;
    lanes[count] = size;
    p += size;
    if (++count < V::kScoreVectors) continue;
    score_rows<V, V::kScoreVectors>(state, keys, to, lanes);
    count = 0;
  }
  if constexpr (V::kScoreVectors > 2) {
    if (count == 3) score_rows<V, 3>(state, keys, to, lanes);
    if (count == 2) score_rows<V, 2>(state, keys, to, lanes);
  }
  if (count == 1) score_rows<V, 1>(state, keys, to, lanes);
}

// Turns one row's scores of `size` positions from `begin` on into weights, and brings what it summed so far to the new
// maximum.
template <class V>
inline void soften(AttentionState<V>& state, int32_t row, int32_t begin, int32_t size) {
  const int32_t head_dim = state.tile.cache->head_dim;
  float* scores = state.scores + static_cast<int64_t>(row) * kAttentionChunk;
  int32_t seen = state.tile.position[row] + 1 - begin;  // positions of the chunk that the row attends to
  if (seen > size) seen = size;
  const typename V::F scale = V::set(1.0F / __builtin_sqrtf(static_cast<float>(head_dim)));
  const typename V::F nothing = V::set(-__builtin_inff());
  typename V::F top = nothing;
  for_vectors<V>(0, size, [&](int64_t i, int64_t lanes) {
    const typename V::F s = V::keep_first(V::mul(V::load_first(scores + i, lanes), scale), seen - i, nothing);
    V::store_first(scores + i, s, lanes);
    top = V::max(top, V::keep_first(s, lanes, nothing));
  });
  float best = V::largest(top);
  typename V::F sum = begin == 0 ? V::zero() : V::load(state.sums + row * V::kLanes);
  if (begin == 0) {
    for_vectors<V>(0, head_dim,
                   [&](int64_t i, int64_t lanes) { V::store_first(state.tile.out[row] + i, V::zero(), lanes); });
  } else if (best > state.best[row]) {
    const typename V::F factor = exponential<V>(V::set(state.best[row] - best));
    sum = V::mul(sum, factor);
    for_vectors<V>(0, head_dim, [&](int64_t i, int64_t lanes) {
      float* out = state.tile.out[row] + i;
      V::store_first(out, V::mul(V::load_first(out, lanes), factor), lanes);
    });
  } else {
    best = state.best[row];
  }
  state.best[row] = best;
  for_vectors<V>(0, size, [&](int64_t i, int64_t lanes) {
    const typename V::F w = V::keep_first(exponential<V>(V::sub(V::load_first(scores + i, lanes), V::set(best))),
                                          seen - i < lanes ? seen - i : lanes, V::zero());
    V::store_first(scores + i, w, lanes);
    sum = V::add(sum, w);
  });
  V::store(state.sums + row * V::kLanes, sum);
}

// out += weights * values over positions [begin, end), for NT vectors of dimensions from d on (the last of `lanes`).
template <class V, int NT, int MT>
inline void add_values(const AttentionState<V>& state, int32_t begin, int32_t end, int64_t row, int64_t d,
                       int64_t lanes) {
  const KvCacheCpu& cache = *state.tile.cache;
  typename V::F sums[NT][MT];
  for (int t = 0; t < NT; ++t) {
    for (int j = 0; j < MT; ++j) sums[t][j] = V::load_first(state.tile.out[row + j] + d + t * V::kLanes, lanes);
  }
  const float* weights = state.scores + row * kAttentionChunk - begin;
  for (int32_t p = begin; p < end;) {
    const int32_t in_block = p % cache.block_size;
    const int32_t size = cache.block_size - in_block < end - p ? cache.block_size - in_block : end - p;
    const float* v = cache.values + cache.offset(state.tile.block_table[p / cache.block_size], state.tile.kv_head) +
                     static_cast<int64_t>(in_block) * cache.head_dim + d;
    for (const int32_t stop = p + size; p < stop; ++p, v += cache.head_dim) {
      typename V::F values[NT];
      for (int t = 0; t < NT; ++t) values[t] = V::load_first(v + t * V::kLanes, lanes);
      for (int j = 0; j < MT; ++j) {
        const typename V::F w = V::set(weights[static_cast<int64_t>(j) * kAttentionChunk + p]);
        for (int t = 0; t < NT; ++t) sums[t][j] = V::fma(w, values[t], sums[t][j]);
      }
    }
  }
  for (int t = 0; t < NT; ++t) {
    for (int j = 0; j < MT; ++j) V::store_first(state.tile.out[row + j] + d + t * V::kLanes, sums[t][j], lanes);
  }
}

template <class V>
void attend(const AttentionTile& tile, float* scratch) {
  AttentionState<V> state{tile, scratch, scratch + kAttentionRows * kAttentionChunk, {}};
  int32_t length = 0;
  for (int32_t r = 0; r < tile.rows; ++r) length = tile.position[r] >= length ? tile.position[r] + 1 : length;
  constexpr int kRows = V::kLanes == 16 ? 6 : 4;
  for (int32_t begin = 0; begin < length; begin += kAttentionChunk) {
    const int32_t end = length - begin < kAttentionChunk ? length : begin + kAttentionChunk;
    score_chunk(state, begin, end);
    for (int32_t r = 0; r < tile.rows; ++r) soften(state, r, begin, end - begin);
    for_tiles<kRows>(0, tile.rows, [&](auto rows, int64_t row) {
      constexpr int64_t kWhole = static_cast<int64_t>(V::kValueVectors) * V::kLanes;
      const int64_t dims = tile.cache->head_dim;
      int64_t d = 0;
      for (; d + kWhole <= dims; d += kWhole)
        add_values<V, V::kValueVectors, rows()>(state, begin, end, row, d, V::kLanes);
      for_vectors<V>(d, dims, [&](int64_t first, int64_t lanes) {
        add_values<V, 1, rows()>(state, begin, end, row, first, lanes);
      });
    });
  }
  for (int32_t r = 0; r < tile.rows; ++r) {
    const typename V::F total = V::set(V::sum(V::load(state.sums + r * V::kLanes)));
    for_vectors<V>(0, tile.cache->head_dim, [&](int64_t i, int64_t lanes) {
      V::store_first(tile.out[r] + i, V::div(V::load_first(tile.out[r] + i, lanes), total), lanes);
    });
  }
}

}  // namespace

template <>
AttendLoop* attend_for<kSimdIsa>() {
  return &attend<Simd>;
}

}  // namespace lorikeet::kernels
