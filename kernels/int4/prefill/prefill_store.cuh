// What follows the sums of kernels/int4/prefill/prefill.cuh: short code for whole tiles, as an area's end is run once and
// must be fetched. Included by .cu files only.
#pragma once

#include "kernels/cuda/device_math.cuh"
#include "kernels/int4/base/output.cuh"

namespace lorikeet::kernels::int4 {

// By a whole warp: stores the sums of a tile and kSums / 2 tokens from first_token on, those below m, as fragments one
// behind the other. The same values as store_outputs.
template <class T, int kSums>
__device__ __forceinline__ void store_tile(const OutputParams& o, bool wide, int m, int tile, int first_token,
                                           const float (&sum)[kSums], int lane) {
  constexpr int kFragments = kSums / 4;
  const int row = lane / 4;
  const int limit = o.paired ? o.n / 2 : o.n;
  const int outputs = o.paired ? 8 : kTileRows;  // of the tile, beside each other
  const int first_output = tile * outputs;
  if (!wide || first_output + outputs > limit) {
#pragma unroll
    for (int f = 0; f < kFragments; f++) {
      const float values[4] = {sum[4 * f], sum[4 * f + 1], sum[4 * f + 2], sum[4 * f + 3]};
      store_columns<T>(o, m, tile, first_token + f * 8, values, lane);
    }
    return;
  }
  float bias[2] = {0, 0};
  if (o.bias != nullptr) {
    bias[0] = o.bias[first_output + row];
    bias[1] = o.bias[first_output + row + (o.paired ? limit : 8)];
  }
  // Rows of tokens: a lane has outputs 2q and 2q + 1 of token lane / 4 of a fragment.
  const int q = lane % 4;
  int left = m - first_token - row;
  T* y = static_cast<T*>(o.y) + (first_token + row) * o.y_stride + first_output;
  const int64_t eight_rows = 8 * o.y_stride;
  const auto pair_of = [&](int f, int half) {
    return device::pack<T>(sum[4 * f + 2 * half] * o.factor + bias[half],
                           sum[4 * f + 2 * half + 1] * o.factor + bias[half]);
  };
  // Neighbours exchange pairs, so that lanes of even q have four outputs of `even` and those of odd q of `odd`.
  const auto four_of = [&](uint32_t even, uint32_t odd) {
    const uint32_t other = __shfl_xor_sync(0xffffffffU, q % 2 == 0 ? odd : even, 1);
    return q % 2 == 0 ? make_uint2(even, other) : make_uint2(other, odd);
  };
  if (o.silu_mul || o.paired) {
    // Fragments by twos: even lanes have four outputs of a token of the first, odd ones of the second.
    y += q / 2 * 4;
    if (q % 2 == 1) {
      y += eight_rows;
      left -= 8;
    }
    // A last one that has no second is even lanes' alone.
    const auto stored = [&](int f) { return f + 1 < kFragments || q % 2 == 0; };
    const auto activated = [&](int f) {
      if (f == kFragments) return 0U;  // no such fragment
      const float2 gate = device::unpack<T>(pair_of(f, 0));
      const float2 up = device::unpack<T>(pair_of(f, 1));
      return device::transpose_8x8(
          device::pack<T>(gate.x / (1.0F + __expf(-gate.x)) * up.x, gate.y / (1.0F + __expf(-gate.y)) * up.y));
    };
    if (o.silu_mul) {
#pragma unroll
      for (int f = 0; f < kFragments; f += 2) {
        const uint2 four = four_of(activated(f), activated(f + 1));
        if (left > 0 && stored(f)) *reinterpret_cast<uint2*>(y) = four;
        y += 2 * eight_rows;
        left -= 16;
      }
      return;
    }
#pragma unroll
    for (int f = 0; f < kFragments; f += 2) {
#pragma unroll
      for (int half = 0; half < 2; half++) {
        const uint32_t second = f + 1 < kFragments ? device::transpose_8x8(pair_of(f + 1, half)) : 0;
        const uint2 four = four_of(device::transpose_8x8(pair_of(f, half)), second);
        if (left > 0 && stored(f)) *reinterpret_cast<uint2*>(y + half * limit) = four;
      }
      y += 2 * eight_rows;
      left -= 16;
    }
    return;
  }
  y += q / 2 * 4 + q % 2 * 8;
#pragma unroll
  for (int f = 0; f < kFragments; f++) {
    const uint2 four = four_of(device::transpose_8x8(pair_of(f, 0)), device::transpose_8x8(pair_of(f, 1)));
    if (left > 0) *reinterpret_cast<uint2*>(y) = four;
    y += eight_rows;
    left -= 8;
  }
}

// Whether y takes stores of four outputs.
inline bool takes_wide_stores(const OutputParams& o) {
  return reinterpret_cast<uintptr_t>(o.y) % 8 == 0 && o.y_stride % 4 == 0 && (!o.paired || o.n / 2 % 4 == 0);
}

}  // namespace lorikeet::kernels::int4
