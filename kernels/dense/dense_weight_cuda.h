// Dense weights in device memory: their way into the type of the activations, and random ones.
#pragma once

#include <cstdint>

#include "kernels/base/device.h"
#include "kernels/base/dtype.h"

namespace lorikeet::kernels {

// to [count] of F16 or BF16 = from [count] of F32, F16 or BF16, rounded to the nearest. Both in device memory, aligned
// to their elements.
void convert_cuda(const void* from, Dtype from_dtype, void* to, Dtype to_dtype, int64_t count, const Stream& stream);

// to [count] of F16 or BF16: uniform in [-bound, bound). Element i depends on `seed` and i alone.
void fill_uniform_cuda(void* to, Dtype dtype, int64_t count, float bound, uint64_t seed, const Stream& stream);

}  // namespace lorikeet::kernels
