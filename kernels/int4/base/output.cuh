// What follows the sums of an int4 product: order of the outputs, bias, SiLU-mul. Included by .cu files only.
#pragma once

#include "kernels/cuda/device_math.cuh"
#include "kernels/int4/base/layout.h"

namespace lorikeet::kernels::int4 {

struct OutputParams {
  void* y;
  const float* bias;  // or null
  int64_t y_stride;
  int32_t n;
  float factor;  // of the sums
  bool paired, silu_mul;
  bool pairs;  // y takes 4-byte stores
};

// Stores one token's outputs in rows g and g + 8 of a tile: what complete(half, value) makes of the products in float,
// half 1 being row g + 8. With SiLU its results are gate and up.
template <class T, class Complete>
__device__ __forceinline__ void store_outputs(const OutputParams& o, int tile, int g, int token, float sum0, float sum1,
                                              Complete&& complete) {
  const int output0 = o.paired ? tile * 8 + g : tile * kTileRows + g;
  const int output1 = o.paired ? o.n / 2 + output0 : output0 + 8;
  const bool valid0 = output0 < (o.paired ? o.n / 2 : o.n);
  const bool valid1 = o.paired ? valid0 : output1 < o.n;
  float value0 = sum0 * o.factor;
  float value1 = sum1 * o.factor;
  if (o.bias != nullptr) {
    if (valid0) value0 += o.bias[output0];
    if (valid1) value1 += o.bias[output1];
  }
  value0 = complete(0, value0);
  value1 = complete(1, value1);
  T* y = static_cast<T*>(o.y) + token * o.y_stride;
  if (o.silu_mul) {
    if (valid0) y[output0] = device::from_float<T>(value0 / (1.0F + __expf(-value0)) * value1);
    return;
  }
  if (valid0) y[output0] = device::from_float<T>(value0);
  if (valid1) y[output1] = device::from_float<T>(value1);
}

template <class T>
__device__ __forceinline__ void store_outputs(const OutputParams& o, int tile, int g, int token, float sum0,
                                              float sum1) {
  // Gate and up are rounded as activations of their own would be: a row keeps its bits in a batch where an adapter's
  // delta comes between the product and the activation.
  store_outputs<T>(o, tile, g, token, sum0, sum1,
                   [](int, float value) { return device::to_float(device::from_float<T>(value)); });
}

// By a whole warp: stores a fragment of sums, of rows g (values[0..1]) and g + 8 (values[2..3]) of a tile for tokens 2t
// and 2t + 1 behind first_token, those below m. The same values as store_outputs.
template <class T>
__device__ __forceinline__ void store_columns(const OutputParams& o, int m, int tile, int first_token,
                                              const float (&values)[4], int lane) {
  if (first_token >= m) return;
  if (!o.pairs) {
    const int token = first_token + lane % 4 * 2;
    if (token < m) store_outputs<T>(o, tile, lane / 4, token, values[0], values[2]);
    if (token + 1 < m) store_outputs<T>(o, tile, lane / 4, token + 1, values[1], values[3]);
    return;
  }
  float v[4];
#pragma unroll
  for (int e = 0; e < 4; e++) v[e] = values[e] * o.factor;
  const int half_step = o.paired ? o.n / 2 : 8;  // from row g's output to row g + 8's
  const int first_output = o.paired ? tile * 8 : tile * kTileRows;
  const int limit = o.paired ? o.n / 2 : o.n;
  if (o.bias != nullptr) {
    const int output = first_output + lane / 4;
    const float bias0 = output < limit ? o.bias[output] : 0.0F;
    const float bias1 = (o.paired ? output : output + half_step) < limit ? o.bias[output + half_step] : 0.0F;
    v[0] += bias0;
    v[1] += bias0;
    v[2] += bias1;
    v[3] += bias1;
  }
  // From rows of outputs to rows of tokens: a lane then holds neighbouring outputs of one token.
  const int token = first_token + lane / 4;
  T* y = static_cast<T*>(o.y) + token * o.y_stride;
  auto store = [&](uint32_t pair, int output) {
    pair = device::transpose_8x8(pair);
    if (token >= m) return;
    if (output + 1 < limit) {
      *reinterpret_cast<uint32_t*>(y + output) = pair;
    } else if (output < limit) {
      *reinterpret_cast<uint16_t*>(y + output) = static_cast<uint16_t>(pair);
    }
  };
  const uint32_t pair0 = device::pack<T>(v[0], v[1]);
  const uint32_t pair1 = device::pack<T>(v[2], v[3]);
  const int output = first_output + lane % 4 * 2;
  if (o.silu_mul) {
    const float2 gate = device::unpack<T>(pair0);
    const float2 up = device::unpack<T>(pair1);
    store(device::pack<T>(gate.x / (1.0F + __expf(-gate.x)) * up.x, gate.y / (1.0F + __expf(-gate.y)) * up.y), output);
    return;
  }
  store(pair0, output);
  if (!o.paired) {
    store(pair1, output + 8);
    return;
  }
  y += o.n / 2;
  store(pair1, output);
}

}  // namespace lorikeet::kernels::int4
