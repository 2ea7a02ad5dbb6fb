// What follows the sums of an int4 product: order of the outputs, bias, SiLU-mul. Included by .cu files only.
#pragma once

#include "kernels/device_math.cuh"
#include "kernels/int4_layout.h"

namespace lorikeet::kernels::int4 {

struct OutputParams {
  void* y;
  const float* bias;  // or null
  int64_t y_stride;
  int32_t n;
  float factor;  // of the sums
  bool paired, silu_mul;
};

// Stores one token's outputs in rows g and g + 8 of a tile.
template <class T>
__device__ __forceinline__ void store_outputs(const OutputParams& o, int tile, int g, int token, float sum0,
                                              float sum1) {
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
  T* y = static_cast<T*>(o.y) + token * o.y_stride;
  if (o.silu_mul) {
    // Rounded as activations of their own would be: a row keeps its bits in a batch where an adapter's delta comes
    // between the product and the activation.
    const float gate = device::to_float(device::from_float<T>(value0));
    const float up = device::to_float(device::from_float<T>(value1));
    if (valid0) y[output0] = device::from_float<T>(gate / (1.0F + __expf(-gate)) * up);
    return;
  }
  if (valid0) y[output0] = device::from_float<T>(value0);
  if (valid1) y[output1] = device::from_float<T>(value1);
}

}  // namespace lorikeet::kernels::int4
