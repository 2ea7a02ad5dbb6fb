// What DoRA (Liu et al., 2024) needs of the base weights: the squared norms of the rows of W + scale * B A.
#pragma once

#include <cstdint>

#include "kernels/base/device.h"
#include "kernels/base/dtype.h"
#include "kernels/int4/int4_gemm_cuda.h"

namespace lorikeet::kernels {

// The pair of one projection in device memory, as PEFT has it.
struct DoraPair {
  const float* a = nullptr;  // [rank, inputs]
  const float* b = nullptr;  // [outputs, rank]
  int32_t rank = 0;
  int32_t inputs = 0;
  int32_t outputs = 0;
  float scale = 0;
};

// norms [pair.outputs] of the weight's outputs [first_output, first_output + pair.outputs), in the order in which a
// product gives them. `scratch` has kDoraScratchBytes, more where a tile of the weight needs it (dora_scratch_bytes).
// A norm is summed in an order that the weight's shape alone decides.
void dora_norms_cuda(const PackedInt4Weight& weight, int32_t first_output, const DoraPair& pair, void* scratch,
                     float* norms, const Stream& stream);
inline constexpr uint64_t kDoraScratchBytes = 8ULL << 20;
constexpr uint64_t dora_scratch_bytes(int32_t max_inputs) {
  const uint64_t tile = uint64_t{2} * 16 * static_cast<uint64_t>(max_inputs);
  return tile > kDoraScratchBytes ? tile : kDoraScratchBytes;
}

// The same for W [n, k] of F16 or BF16.
void dora_norms_cuda(const void* weight, Dtype dtype, int32_t first_output, const DoraPair& pair, float* norms,
                     const Stream& stream);

}  // namespace lorikeet::kernels
