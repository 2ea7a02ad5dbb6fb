// The device version of y = x W^T with an int4 weight, for any number of tokens.
//
// Up to kInt4DecodeRows tokens go through kernels that read the packed weight once; more go through tensor-core tiles
// for many tokens. In the first, a row's result depends neither on m nor on the other rows nor on the device: see
// kernels/int4/base/fragment.cuh for the one order in which products are summed.
#pragma once

#include <cstdint>
#include <memory>
#include <span>

#include "kernels/base/device.h"
#include "kernels/base/dtype.h"
#include "kernels/cuda/library_gemm.h"
#include "kernels/int4/base/int4_lora.h"
#include "kernels/int4/base/int4_weight.h"

namespace lorikeet::kernels {

inline constexpr int32_t kInt4DecodeRows = 64;

// A weight in the layout of the device (kernels/int4/base/layout.h), and what the kernels need to know of it.
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

// x of up to kNormRows rows as the RMSNorm of a residual stream in float, by the product itself
// (kernels/layer/rms_norm_cuda.h has the definition, and gives the same bits). All pointers are to device memory; rows
// are x_size long.
inline constexpr int32_t kNormRows = 2;
struct NormPrologue {
  const float* residual = nullptr;  // null: x is given
  const void* delta = nullptr;      // of `dtype`, or null: nothing is added
  float* residual_out = nullptr;    // residual + delta, which does not overlap `residual`; null: nobody asks
  const float* weight = nullptr;    // [x_size]
  float epsilon = 0;
};

// All pointers are to device memory; x and y rows are 16-byte aligned.
struct Int4GemmArgs {
  const void* x = nullptr;   // [m, x_size] of `dtype`
  int64_t x_stride = 0;      // elements between rows, a multiple of 8
  Dtype dtype = Dtype::f16;  // of x and y: F16 or BF16
  void* y = nullptr;         // [m, n] of `dtype`; with silu_mul [m, n / 2]
  int64_t y_stride = 0;      // elements between rows
  int32_t m = 0;
  const float* bias = nullptr;  // [n] or null
  bool silu_mul = false;        // paired weights only: y = silu(gate) * up
  NormPrologue norm;            // only where takes_norm; then x is not read
  // The kernel in front in the stream is a product of the same Int4Gemm: blocks may begin beside the last of it.
  bool follows_product = false;
  // Or null; only where Int4Gemm::takes_lora says so, and without a bias. Completes the outputs (of gate and up before
  // SiLU-mul), each rounded to `dtype` before its delta is added.
  const Int4Lora* lora = nullptr;
};

// Owns the scratch memory of the products. Threads: one at a time, on one stream.
class Int4Gemm {
 public:
  // For products of up to max_rows tokens with weights up to max_outputs x max_inputs.
  static Result<Int4Gemm> make(int32_t max_rows, int32_t max_outputs, int32_t max_inputs);
  Int4Gemm(Int4Gemm&&) noexcept;
  Int4Gemm& operator=(Int4Gemm&&) noexcept;
  ~Int4Gemm();

  // Queues the product. Up to kInt4DecodeRows tokens it can be captured in a graph; above, the first call for a shape
  // must not be captured, as devices without a kernel of ours for it (kernels/int4/prefill/int4_prefill.h) choose an
  // algorithm.
  void run(const PackedInt4Weight& weight, const Int4GemmArgs& args, const Stream& stream);

  // Whether the product of m rows takes a NormPrologue.
  bool takes_norm(const PackedInt4Weight& weight, int32_t m, Dtype dtype);
  // Whether products with m tokens complete their outputs by adapters themselves. Their blocks then wait for each
  // other: no other process may keep some of them off the device.
  bool takes_lora(const PackedInt4Weight& weight, int32_t m, const LoraLinear& linear, int32_t max_rank) const;

 private:
  struct Impl;
  explicit Int4Gemm(std::unique_ptr<Impl> impl);
  std::unique_ptr<Impl> impl_;
};

}  // namespace lorikeet::kernels
