// Keys and values go from the cache straight into tensor-core fragments, without shared memory: the sum over head_dim
// and the order of the output's elements may be permuted freely, so every lane takes whole 16-byte pieces of its rows.
//   scores^T [16 positions x 8 heads] = K [16 x head_dim] q^T;  out^T [head_dim x 8 heads] += V^T [head_dim x 16] P^T
#include <cfloat>

#include "kernels/attention_decode_cuda.h"
#include "kernels/cuda_check.h"
#include "kernels/device_math.cuh"
#include "kernels/element_dispatch.cuh"
#include "kernels/overlap_launch.cuh"

namespace lorikeet::kernels {
namespace {

constexpr int kWarps = 4;
constexpr int kThreads = kWarps * device::kWarpSize;
constexpr int kTile = 16;     // positions of one warp's step
constexpr int kHeadTile = 8;  // query heads of one thread block: columns of the tensor-core step
constexpr int kBlocksPerMultiprocessor = 3;

__device__ __forceinline__ float exp2_fast(float x) {
  float y;
  asm("ex2.approx.ftz.f32 %0, %1;" : "=f"(y) : "f"(x));
  return y;
}

// 16-bit halves of two registers side by side: the lower halves (kHigh false) or the upper ones.
template <bool kHigh>
__device__ __forceinline__ uint32_t join_halves(uint32_t a, uint32_t b) {
  return __byte_perm(a, b, kHigh ? 0x7632 : 0x5410);
}

// Converts packed 16-bit pairs of Kv to pairs of T.
template <class T, class Kv>
__device__ __forceinline__ uint32_t convert_pair(uint32_t packed) {
  if constexpr (__is_same(T, Kv)) return packed;
  const float2 f = device::unpack<Kv>(packed);
  return device::pack<T>(f.x, f.y);
}

// Which elements of a cached row a lane takes. With 16-bit storage a 16-byte piece holds 8 elements, with fp8 16.
// g = lane / 4 and t = lane % 4, as in device::mma_m16n8k16.
template <class T, class Kv, int kHeadDim>
struct Layout {
  static constexpr bool kFp8 = sizeof(Kv) == 1;
  static constexpr int kSteps = kHeadDim / 16;       // tensor-core steps over head_dim (scores), and row tiles of out^T
  static constexpr int kKeyWords = kHeadDim / 8;     // registers for a lane's quarter of a key row
  static constexpr int kValueWords = kHeadDim / 16;  // registers for a lane's eighth of a value row

  // First of the four neighbouring elements that lane t puts into step s.
  static __device__ __forceinline__ int key_element(int s, int t) {
    return kFp8 ? 16 * (4 * (s / 4) + t) + 4 * (s % 4) : 8 * (4 * (s / 2) + t) + 4 * (s % 2);
  }

  // In row tile s of out^T, row g + 8 * half is element value_element of the head; lane g holds it at place
  // value_place.
  static constexpr __device__ __forceinline__ int value_place(int s, int half) {
    return kFp8 ? s + kSteps * half : 8 * (s / 4) + s % 4 + 4 * half;
  }
  static __device__ __forceinline__ int value_element(int s, int half, int g) {
    return kFp8 ? 2 * kSteps * g + value_place(s, half) : 64 * (s / 4) + 8 * g + s % 4 + 4 * half;
  }

  static __device__ __forceinline__ void load_key(const Kv* row, int t, uint32_t (&words)[kKeyWords]) {
    const uint4* pieces = reinterpret_cast<const uint4*>(row);
    if constexpr (kFp8) {
#pragma unroll
      for (int j = 0; j < kHeadDim / 64; j++) widen(pieces[4 * j + t], &words[8 * j]);
    } else {
#pragma unroll
      for (int j = 0; j < kHeadDim / 32; j++) convert(pieces[4 * j + t], &words[4 * j]);
    }
  }

  static __device__ __forceinline__ void load_value(const Kv* row, int g, uint32_t (&words)[kValueWords]) {
    if constexpr (kFp8 && kHeadDim == 128) {
      widen(reinterpret_cast<const uint4*>(row)[g], words);
    } else if constexpr (kFp8) {
      const uint2 piece = reinterpret_cast<const uint2*>(row)[g];
      widen_word(piece.x, words);
      widen_word(piece.y, words + 2);
    } else {
#pragma unroll
      for (int c = 0; c < kHeadDim / 64; c++) convert(reinterpret_cast<const uint4*>(row)[8 * c + g], &words[4 * c]);
    }
  }

 private:
  static __device__ __forceinline__ void widen_word(uint32_t four, uint32_t* words) {
    words[0] = device::widen_fp8<T>(static_cast<uint16_t>(four & 0xffffU));
    words[1] = device::widen_fp8<T>(static_cast<uint16_t>(four >> 16));
  }
  static __device__ __forceinline__ void widen(uint4 piece, uint32_t* words) {
    widen_word(piece.x, words);
    widen_word(piece.y, words + 2);
    widen_word(piece.z, words + 4);
    widen_word(piece.w, words + 6);
  }
  static __device__ __forceinline__ void convert(uint4 piece, uint32_t* words) {
    words[0] = convert_pair<T, Kv>(piece.x);
    words[1] = convert_pair<T, Kv>(piece.y);
    words[2] = convert_pair<T, Kv>(piece.z);
    words[3] = convert_pair<T, Kv>(piece.w);
  }
};

// The step's rows, read once per thread block.
struct RowTables {
  int contexts[kMaxDecodeRows];
  int table_begins[kMaxDecodeRows];
  int split_begins[kMaxDecodeRows + 1];
};

// Where the partial results lie: per split (counted over all rows) and query head.
struct Partials {
  int* arrivals;    // [rows, kv_heads, head tiles]: how many splits are done; 0 between launches
  float2* max_sum;  // [splits, heads]: the largest score (times log2 e) and the sum of 2^(score - largest)
  float* out;       // [splits, heads, head_dim]: sum of 2^(score - largest) * value
};

__host__ __device__ uint64_t arrival_words(int rows, int heads, int kv_heads) {
  const int tiles = (heads / kv_heads + kHeadTile - 1) / kHeadTile;
  return (static_cast<uint64_t>(rows) * kv_heads * tiles + 63) / 64 * 64;
}

__device__ Partials partials_of(const DecodeAttentionArgs& args) {
  Partials p;
  p.arrivals = reinterpret_cast<int*>(args.workspace);
  float* rest = args.workspace + arrival_words(kMaxDecodeRows, args.heads, args.cache.kv_heads);
  p.max_sum = reinterpret_cast<float2*>(rest);
  p.out = rest + 2 * static_cast<size_t>(args.rows) * args.policy.max_splits * args.heads;
  return p;
}

// One warp's online softmax over its tiles of a split.
template <class T, int kHeadDim>
struct Accumulator {
  float largest[2] = {-INFINITY, -INFINITY};  // of heads 2t, 2t + 1; the same in all lanes of equal t
  float sum[2] = {0, 0};                      // this lane's positions only
  float out[kHeadDim / 16][4] = {};           // out^T, unnormalised
};

template <class T, class Kv, int kHeadDim>
__global__ void __launch_bounds__(kThreads, kBlocksPerMultiprocessor) decode_attention(DecodeAttentionArgs args) {
  using L = Layout<T, Kv, kHeadDim>;
  __shared__ RowTables tables;
  __shared__ float warp_out[kWarps][kHeadTile][kHeadDim + 4];
  __shared__ float2 warp_max_sum[kWarps][kHeadTile];
  __shared__ bool is_last;

  // The tables are a copy from the host, which is done before the step's first kernel begins.
  device::allow_next_kernel();
  for (int r = threadIdx.x; r <= args.rows; r += kThreads) {
    tables.split_begins[r] = args.split_begins[r];
    if (r == args.rows) break;
    tables.contexts[r] = args.contexts[r];
    tables.table_begins[r] = args.table_begins[r];
  }
  __syncthreads();

  const int warp = threadIdx.x / device::kWarpSize;
  const int lane = threadIdx.x % device::kWarpSize;
  const int g = lane / 4;
  const int t = lane % 4;
  const int kv_heads = args.cache.kv_heads;
  const int group = args.heads / kv_heads;
  const int head_tiles = (group + kHeadTile - 1) / kHeadTile;
  const int block_size = args.cache.block_size;
  const int block_shift = 31 - __clz(block_size);
  const float scale = args.scale * 1.4426950408889634F;  // log2 e: the softmax works in powers of two
  const Partials partials = partials_of(args);
  const int items = tables.split_begins[args.rows] * kv_heads * head_tiles;
  device::wait_for_previous_kernel();

  for (int item = blockIdx.x; item < items; item += gridDim.x) {
    const int split_of_all = item / (kv_heads * head_tiles);
    const int kv_head = item / head_tiles % kv_heads;
    const int head_tile = item % head_tiles;
    int row = 0;  // the last row whose splits begin at or before this one
    for (int low = 0, high = args.rows; high - low > 1;) {
      const int middle = (low + high) / 2;
      if (tables.split_begins[middle] <= split_of_all) {
        row = low = middle;
      } else {
        high = middle;
      }
    }
    const int context = tables.contexts[row];
    const int splits = tables.split_begins[row + 1] - tables.split_begins[row];
    const int length = args.policy.split_length(context);
    const int begin = (split_of_all - tables.split_begins[row]) * length;
    const int end = min(begin + length, context);
    const int first_head = kv_head * group + head_tile * kHeadTile;
    const int heads_here = min(kHeadTile, group - head_tile * kHeadTile);
    const int* block_table = args.block_tables + tables.table_begins[row];
    const Kv* keys = static_cast<const Kv*>(args.cache.keys);
    const Kv* values = static_cast<const Kv*>(args.cache.values);

    // Row of the cache that holds position begin + lane % 16 of a tile; past the end, the last position's (its weight
    // is 0).
    auto cache_row = [&](int tile_begin) {
      const int position = min(tile_begin + lane % kTile, end - 1);
      const int block = block_table[position >> block_shift];
      return (block * kv_heads + kv_head) * block_size + (position & (block_size - 1));
    };
    uint32_t key[2][L::kKeyWords];
    uint32_t value[4][L::kValueWords];
    auto load_keys = [&](int rows_of_tile) {
#pragma unroll
      for (int i = 0; i < 2; i++) {
        const int r = __shfl_sync(device::kFullWarp, rows_of_tile, g + 8 * i);
        L::load_key(keys + static_cast<size_t>(r) * kHeadDim, t, key[i]);
      }
    };
    auto load_values = [&](int rows_of_tile) {
#pragma unroll
      for (int i = 0; i < 4; i++) {
        const int r = __shfl_sync(device::kFullWarp, rows_of_tile, 2 * t + i % 2 + 8 * (i / 2));
        L::load_value(values + static_cast<size_t>(r) * kHeadDim, g, value[i]);
      }
    };

    Accumulator<T, kHeadDim> acc;
    int tile = begin + warp * kTile;
    if (tile < end) {
      const int rows_of_tile = cache_row(tile);
      load_keys(rows_of_tile);
      load_values(rows_of_tile);
    }

    uint2 query[L::kSteps];
    const T* q = static_cast<const T*>(args.q) + static_cast<int64_t>(args.query_tokens[row]) * args.q_stride +
                 static_cast<int64_t>(first_head + g) * kHeadDim;
#pragma unroll
    for (int s = 0; s < L::kSteps; s++) {
      query[s] = make_uint2(0, 0);
      if (g < heads_here) query[s] = *reinterpret_cast<const uint2*>(q + L::key_element(s, t));
    }

    while (tile < end) {
      float score[4] = {0, 0, 0, 0};
#pragma unroll
      for (int s = 0; s < L::kSteps; s++) {
        device::mma_m16n8k16<T>(score, key[0][2 * s], key[1][2 * s], key[0][2 * s + 1], key[1][2 * s + 1], query[s].x,
                                query[s].y);
      }
      const int next = tile + kWarps * kTile;
      const int next_rows = next < end ? cache_row(next) : 0;
      if (next < end) load_keys(next_rows);

      score[0] = tile + g < end ? score[0] * scale : -INFINITY;
      score[1] = tile + g < end ? score[1] * scale : -INFINITY;
      score[2] = tile + g + 8 < end ? score[2] * scale : -INFINITY;
      score[3] = tile + g + 8 < end ? score[3] * scale : -INFINITY;
      float shrink[2];
#pragma unroll
      for (int h = 0; h < 2; h++) {
        float largest = fmaxf(score[h], score[h + 2]);
#pragma unroll
        for (int offset = 4; offset < device::kWarpSize; offset *= 2) {
          largest = fmaxf(largest, __shfl_xor_sync(device::kFullWarp, largest, offset));
        }
        largest = fmaxf(largest, acc.largest[h]);
        shrink[h] = exp2_fast(acc.largest[h] - largest);
        acc.largest[h] = largest;
        score[h] = exp2_fast(score[h] - largest);
        score[h + 2] = exp2_fast(score[h + 2] - largest);
        acc.sum[h] = acc.sum[h] * shrink[h] + (score[h] + score[h + 2]);
      }
      const uint32_t p0 = device::transpose_8x8(device::pack<T>(score[0], score[1]));
      const uint32_t p1 = device::transpose_8x8(device::pack<T>(score[2], score[3]));
#pragma unroll
      for (int s = 0; s < L::kSteps; s++) {
        float(&out)[4] = acc.out[s];
        out[0] *= shrink[0];
        out[1] *= shrink[1];
        out[2] *= shrink[0];
        out[3] *= shrink[1];
        constexpr auto fragment = [](const uint32_t(&v)[4][L::kValueWords], int pair, int place) {
          return place % 2 == 0 ? join_halves<false>(v[2 * pair][place / 2], v[2 * pair + 1][place / 2])
                                : join_halves<true>(v[2 * pair][place / 2], v[2 * pair + 1][place / 2]);
        };
        const int upper = L::value_place(s, 0);
        const int lower = L::value_place(s, 1);
        device::mma_m16n8k16<T>(out, fragment(value, 0, upper), fragment(value, 0, lower), fragment(value, 1, upper),
                                fragment(value, 1, lower), p0, p1);
      }
      if (next < end) load_values(next_rows);
      tile = next;
    }

    // The warps' results meet in shared memory and are added in the order of the warps.
#pragma unroll
    for (int h = 0; h < 2; h++) {
#pragma unroll
      for (int offset = 4; offset < device::kWarpSize; offset *= 2) {
        acc.sum[h] += __shfl_xor_sync(device::kFullWarp, acc.sum[h], offset);
      }
      if (g == 0) warp_max_sum[warp][2 * t + h] = make_float2(acc.largest[h], acc.sum[h]);
    }
#pragma unroll
    for (int s = 0; s < L::kSteps; s++) {
#pragma unroll
      for (int i = 0; i < 4; i++) warp_out[warp][2 * t + i % 2][L::value_element(s, i / 2, g)] = acc.out[s][i];
    }
    __syncthreads();
    T* out =
        static_cast<T*>(args.out) + (static_cast<int64_t>(args.query_tokens[row]) * args.heads + first_head) * kHeadDim;
    for (int i = threadIdx.x; i < heads_here * kHeadDim; i += kThreads) {
      const int head = i / kHeadDim;
      const int d = i % kHeadDim;
      float largest = -INFINITY;
#pragma unroll
      for (int w = 0; w < kWarps; w++) largest = fmaxf(largest, warp_max_sum[w][head].x);
      float sum = 0;
      float total = 0;
#pragma unroll
      for (int w = 0; w < kWarps; w++) {
        const float weight = exp2_fast(warp_max_sum[w][head].x - largest);
        sum += weight * warp_max_sum[w][head].y;
        total += weight * warp_out[w][head][d];
      }
      if (splits == 1) {
        out[i] = device::from_float<T>(total / sum);
      } else {
        const size_t place = static_cast<size_t>(split_of_all) * args.heads + first_head + head;
        partials.out[place * kHeadDim + d] = total;
        if (d == 0) partials.max_sum[place] = make_float2(largest, sum);
      }
    }
    if (splits == 1) {
      __syncthreads();  // before the next item writes warp_out
      continue;
    }

    // The block that arrives last joins the splits, always in the order of their positions.
    __threadfence();
    __syncthreads();
    if (threadIdx.x == 0) {
      int* arrivals = &partials.arrivals[(row * kv_heads + kv_head) * head_tiles + head_tile];
      is_last = atomicAdd(arrivals, 1) == splits - 1;
      if (is_last) *arrivals = 0;
    }
    __syncthreads();
    if (is_last) {
      __threadfence();
      for (int i = threadIdx.x; i < heads_here * kHeadDim; i += kThreads) {
        const size_t first = static_cast<size_t>(tables.split_begins[row]) * args.heads + first_head + i / kHeadDim;
        float largest = -INFINITY;
        for (int s = 0; s < splits; s++) largest = fmaxf(largest, __ldcg(&partials.max_sum[first + s * args.heads]).x);
        float sum = 0;
        float total = 0;
#pragma unroll 4
        for (int s = 0; s < splits; s++) {
          const size_t place = first + static_cast<size_t>(s) * args.heads;
          const float2 max_sum = __ldcg(&partials.max_sum[place]);
          const float weight = exp2_fast(max_sum.x - largest);
          sum += weight * max_sum.y;
          total += weight * __ldcg(&partials.out[place * kHeadDim + i % kHeadDim]);
        }
        out[i] = device::from_float<T>(total / sum);
      }
    }
    __syncthreads();  // before the next item writes warp_out and is_last
  }
}

}  // namespace

uint64_t decode_attention_workspace(int32_t rows, int32_t heads, int32_t kv_heads, int32_t head_dim,
                                    const SplitPolicy& policy) {
  const uint64_t places = static_cast<uint64_t>(rows) * policy.max_splits * heads;
  return 4 * (arrival_words(kMaxDecodeRows, heads, kv_heads) + places * (2 + head_dim));
}

void decode_attention_cuda(const DecodeAttentionArgs& args, const Stream& stream) {
  const int32_t kv_heads = args.cache.kv_heads;
  CHECK(args.cache.head_dim == 64 || args.cache.head_dim == 128) << "head size " << args.cache.head_dim;
  CHECK_EQ(args.heads % kv_heads, 0);
  CHECK_EQ(args.cache.block_size & (args.cache.block_size - 1), 0);
  CHECK_LE(args.rows, kMaxDecodeRows);
  if (args.rows == 0) return;
  const int head_tiles = (args.heads / kv_heads + kHeadTile - 1) / kHeadTile;
  const int64_t most_items = static_cast<int64_t>(args.rows) * args.policy.max_splits * kv_heads * head_tiles;
  const auto blocks = static_cast<unsigned>(
      std::min<int64_t>(most_items, static_cast<int64_t>(args.multiprocessors) * kBlocksPerMultiprocessor));
  with_activation_type(args.dtype, [&](auto element) {
    with_kv_type(args.cache.dtype, [&](auto kv_element) {
      using T = typename decltype(element)::type;
      using Kv = typename decltype(kv_element)::type;
      const auto kernel = args.cache.head_dim == 128 ? decode_attention<T, Kv, 128> : decode_attention<T, Kv, 64>;
      device::launch_overlapped(kernel, blocks, kThreads, 0, stream.handle(), args);
    });
  });
}

}  // namespace lorikeet::kernels
