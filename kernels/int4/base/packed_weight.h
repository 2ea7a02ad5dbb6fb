// An int4 weight in the layout of the device (kernels/int4/base/layout.h): packing, and unpacking for products by a
// library.
#pragma once

#include <cstdint>
#include <span>

#include "kernels/base/device.h"
#include "kernels/base/dtype.h"
#include "kernels/int4/base/int4_weight.h"

namespace lorikeet::kernels {

// The packed weight, and what the kernels need to know of it.
struct PackedInt4Weight {
  int32_t n = 0;        // outputs
  int32_t k = 0;        // inputs as stored
  int32_t x_size = 0;   // length of the x that callers pass
  bool paired = false;  // gate and up: outputs [0, n / 2) and [n / 2, n) lie beside each other, so that SiLU-mul fuses

  int32_t tiles = 0;        // of 16 outputs
  int32_t units = 0;        // of 128 inputs
  int32_t scale_block = 0;  // inputs that share a scale: 128, or 32 where a run is not whole units
  bool asymmetric = false;  // zeros are stored; otherwise all are 8
  float scale_factor = 1;   // a power of two: stored scales are the true ones divided by it

  DeviceBuffer data;         // [tiles, units] units, and data_bytes() in all: kernels read whole lines of the L2
  DeviceBuffer permutation;  // int32 [k] or empty

  int32_t unit_bytes() const;
  uint64_t data_bytes() const;

  // Packs weights that take the same x (q, k, v; or one alone): the outputs of each part follow those of the one
  // before. Fails where memory runs out, or where parts differ in k, runs or permutation, so that they cannot be one
  // product.
  static Result<PackedInt4Weight> pack(std::span<const Int4Weight* const> parts, const Stream& stream);

  // Packs gate and up, which must be alike in everything, as a pair.
  static Result<PackedInt4Weight> pack_pair(const Int4Weight& gate, const Int4Weight& up, const Stream& stream);

  // Random weights of about unit gain, for runs without a checkpoint: symmetric, groups of 128.
  static Result<PackedInt4Weight> random(int32_t n, int32_t k, bool paired, uint64_t seed, const Stream& stream);
};

// W in T, [n, k] row-major over the stored inputs (permuted ones stay permuted), outputs in the callers' order.
void dequantize_cuda(const PackedInt4Weight& weight, Dtype dtype, void* out, int32_t first_tile, int32_t tiles,
                     const Stream& stream);

}  // namespace lorikeet::kernels
