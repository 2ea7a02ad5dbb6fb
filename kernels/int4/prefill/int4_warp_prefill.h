// The int4 product for kInt4DecodeRows to kInt4WarpPrefillRows tokens in one kernel, for devices without Hopper's
// warpgroup steps: it needs compute capability 8.0 and 99 KiB of shared memory for a block. Used by
// kernels/int4/int4_gemm_cuda.h, and by benchmarks that compare its shapes.
#pragma once

#include <vector>

#include "kernels/base/device.h"
#include "kernels/int4/base/decode_shape.h"
#include "kernels/int4/base/gemm_args.h"
#include "kernels/int4/base/packed_weight.h"

namespace lorikeet::kernels {

// With more tokens it takes longer than to unpack the weight for cuBLASLt (bench/RESULTS.md, on an H200).
inline constexpr int32_t kInt4WarpPrefillRows = 384;

// An area is 128 outputs of `columns` tokens. The blocks share out the inputs of all areas among themselves
// (kernels/int4/prefill/warp_prefill_walk.h); with as many as there are areas each makes one.
struct Int4WarpPrefillShape {
  int32_t columns = 0;
  int32_t blocks = 0;
  uint64_t bytes = 0;      // of shared memory
  uint64_t sum_bytes = 0;  // of device memory: sums of areas that blocks share
  bool shares = false;     // whether there are any
};

// All that come into question for m tokens, each within the device's shared memory, and the one that should take the
// least time. Where areas are shared there are no more blocks than multiprocessors.
std::vector<Int4WarpPrefillShape> int4_warp_prefill_shapes(const PackedInt4Weight& weight, int32_t m,
                                                           const Int4DecodeDevice& device);
Int4WarpPrefillShape shape_int4_warp_prefill(const PackedInt4Weight& weight, int32_t m, const Int4DecodeDevice& device);

// Of every shape on this device, at most.
uint64_t int4_warp_prefill_sum_bytes(const Int4DecodeDevice& device);

// Device memory in which blocks leave each other sums. Products of one stream may share it.
struct Int4WarpPrefillScratch {
  DeviceBuffer sums;
  DeviceBuffer arrived;  // int [multiprocessors], 0 between products

  // Room for every shape on this device.
  static Result<Int4WarpPrefillScratch> make(const Int4DecodeDevice& device);
};

// Any m > 0; `shape` is one for the same weight and m. x is not permuted: where the weight has a permutation, args.x
// must be in the order of the stored inputs. A row's result does not depend on the other rows, but on the shape and on
// m, by which the sums are divided.
void int4_warp_prefill(const PackedInt4Weight& weight, const Int4GemmArgs& args, const Int4WarpPrefillShape& shape,
                       const Int4WarpPrefillScratch& scratch, const Stream& stream);

}  // namespace lorikeet::kernels
