// The product of int4 weights and activations in 8 bits with vectors of 32 bytes. Compiled once for each way to multiply
// bytes (kernels/CMakeLists.txt), called only where the machine has it.
#include "kernels/cpu/product_simd.h"
#include "kernels/int4/int8_inputs.h"
#if defined(__AVX2__)
#include "kernels/int4/int8_vectors_avx2.h"
#else
#include "kernels/int4/int8_vectors_neon.h"
#endif

namespace lorikeet::kernels {
namespace {

#define LORIKEET_INLINE __attribute__((always_inline)) inline

using V = ByteVectors;

// The nibbles of a block of B inputs, a byte each, in vectors.
template <int B>
struct BlockNibbles {
  static constexpr int kVectors = B / 32;
  V::Bytes vectors[kVectors];
};
template <int B>
LORIKEET_INLINE BlockNibbles<B> unpack(const uint8_t* q) {
  BlockNibbles<B> block;
  if constexpr (B == 128) {
    const V::Bytes a = V::load(q), b = V::load(q + 32);
    const V::Bytes even = V::even_eights(a, b), odd = V::odd_eights(a, b);
    block.vectors[0] = V::low(even);
    block.vectors[1] = V::high(even);
    block.vectors[2] = V::low(odd);
    block.vectors[3] = V::high(odd);
  } else if constexpr (B == 64) {
    const V::Bytes a = V::load(q);
    block.vectors[0] = V::low(a);
    block.vectors[1] = V::high(a);
  } else {
    block.vectors[0] = V::low_then_high(q);
  }
  return block;
}

// Where a tile is in its inputs.
struct Place {
  const uint8_t* q;
  const int8_t* bytes;
  const float* scales;
};

// The blocks of B inputs that are in the next `left` inputs of a run. While one tile is computed, the weights of a later
// one are fetched.
template <int B, int NT, int MT>
LORIKEET_INLINE void add_blocks(int32_t& left, Place& at, int64_t row_bytes, int64_t ahead, int64_t x_stride,
                                V::Floats (*part)[MT]) {
  for (; left >= B; left -= B, at.q += B / 2, at.bytes += B, at.scales += Int8Inputs::kLanes) {
#pragma GCC unroll 8
    for (int i = 0; i < NT; ++i) {
      __builtin_prefetch(at.q + i * row_bytes + ahead, 0, 2);
      const BlockNibbles<B> nibbles = unpack<B>(at.q + i * row_bytes);
#pragma GCC unroll 8
      for (int j = 0; j < MT; ++j) {
        const int8_t* bytes = at.bytes + j * x_stride * static_cast<int64_t>(sizeof(float));
        V::Sums sums = V::no_sums();
#pragma GCC unroll 4
        for (int v = 0; v < B / 32; ++v) sums = V::add_products(sums, nibbles.vectors[v], V::load(bytes + 32 * v));
        part[i][j] = V::fma(V::to_floats(sums), V::load_floats(at.scales + j * x_stride), part[i][j]);
      }
    }
  }
}

// Of a run: scale * (sum of nibbles times inputs - zero * sum of inputs).
template <int NT, int MT>
void int8_tile(const Int4View& weight, const float* x, int64_t x_stride, int64_t blocks, int64_t n, float* y,
               int64_t y_stride) {
  const int64_t row_bytes = weight.k / 2, ahead = prefetch_distance(NT * row_bytes);
  Place at = {weight.q.data() + n * row_bytes, reinterpret_cast<const int8_t*>(x), x + weight.k / 4};
  const float* run_sums = at.scales + Int8Inputs::kLanes * blocks;
  const float* scale = weight.scale.data() + n;
  const uint8_t* zero = weight.zero.data() + n;
  V::Floats sums[NT][MT], part[NT][MT];
  for (int i = 0; i < NT; ++i) {
    for (int j = 0; j < MT; ++j) sums[i][j] = V::zero();
  }
  for (int32_t run = 0; run < weight.runs(); ++run, scale += weight.n, zero += weight.n) {
    __builtin_prefetch(scale + 16);
    __builtin_prefetch(zero + 64);
    for (int i = 0; i < NT; ++i) {
      const V::Floats minus_zero = V::set(-static_cast<float>(zero[i]));
      for (int j = 0; j < MT; ++j) part[i][j] = V::mul(minus_zero, V::load_floats(run_sums + j * x_stride));
    }
    run_sums += Int8Inputs::kLanes;
    const size_t r = static_cast<size_t>(run);
    int32_t left = weight.run_begin[r + 1] - weight.run_begin[r];
    add_blocks<128, NT, MT>(left, at, row_bytes, ahead, x_stride, part);
    add_blocks<64, NT, MT>(left, at, row_bytes, ahead, x_stride, part);
    add_blocks<32, NT, MT>(left, at, row_bytes, ahead, x_stride, part);
    for (int i = 0; i < NT; ++i) {
      const V::Floats factor = V::set(scale[i]);
      for (int j = 0; j < MT; ++j) sums[i][j] = V::fma(factor, part[i][j], sums[i][j]);
    }
  }
  for (int j = 0; j < MT; ++j) {
    for (int i = 0; i < NT; ++i) y[j * y_stride + i] = V::sum(sums[i][j]);
  }
}

struct Tiles {
  static constexpr int kGemvOutputs = 4;
  static constexpr int kTileOutputs = 2, kTileRows = 4;
};

void int8_product(const Int4View& weight, const ProductRows& rows, int64_t n_begin, int64_t n_end) {
  const int64_t blocks = Int8Inputs::blocks_of(weight);
  for_product_tiles<Tiles>(rows, n_begin, n_end, [&](auto outputs, auto tile_rows, int64_t n, int64_t j) {
    int8_tile<outputs(), tile_rows()>(weight, rows.x + j * rows.x_stride, rows.x_stride, blocks, n,
                                      rows.y + j * rows.y_stride + n, rows.y_stride);
  });
}

}  // namespace

template <>
Int8ProductLoop* int8_product_for<V::kDot>() {
  return &int8_product;
}

}  // namespace lorikeet::kernels
