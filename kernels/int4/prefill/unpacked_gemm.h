// The int4 product for many tokens by cuBLASLt, of a weight that is unpacked a piece at a time. Used by
// kernels/int4/int4_gemm_cuda.h where no kernel of ours serves.
#pragma once

#include "kernels/base/device.h"
#include "kernels/cuda/library_gemm.h"
#include "kernels/int4/base/gemm_args.h"
#include "kernels/int4/base/packed_weight.h"

namespace lorikeet::kernels {

// Owns the memory for the unpacked piece and its products. Threads: one at a time, on one stream.
class UnpackedInt4Gemm {
 public:
  // For products of up to max_rows tokens with weights of up to max_outputs. Fails where memory runs out.
  static Result<UnpackedInt4Gemm> make(int32_t max_rows, int32_t max_outputs);

  // Queues the product. The first call for a shape must not be captured, as an algorithm is chosen. x is not permuted:
  // where the weight has a permutation, args.x must be in the order of the stored inputs.
  void run(const PackedInt4Weight& weight, const Int4GemmArgs& args, const Stream& stream);

 private:
  UnpackedInt4Gemm(LibraryGemm library, DeviceBuffer dequantized, DeviceBuffer products);

  LibraryGemm library_;
  DeviceBuffer dequantized_, products_;
};

}  // namespace lorikeet::kernels
