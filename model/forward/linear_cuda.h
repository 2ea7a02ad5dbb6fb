// The products of a step with base weights in any form.
#pragma once

#include <cstdint>

#include "kernels/cuda/library_gemm.h"
#include "kernels/int4/int4_gemm_cuda.h"
#include "model/forward/device_weights.h"

namespace lorikeet::model {

// Rows of a matrix in device memory.
struct DeviceRows {
  void* data = nullptr;
  int64_t stride = 0;  // elements between rows, a multiple of 8
};

// What an int4 product does besides, where takes_norm and takes_lora say that it can.
struct ProductExtras {
  kernels::NormPrologue norm;  // with a residual: takes the place of x
  const kernels::Int4Lora* lora = nullptr;
  bool follows_product = false;  // the kernel in front is a product of the same CudaLinear
  bool follows_sum = false;      // it waits for other ranks
  int32_t of_rows = 0;           // x has some rows of so many, where takes_parts; 0: all
};

// Owns the scratch memory. Threads: one at a time, on one stream.
class CudaLinear {
 public:
  // For up to max_rows rows of x at a time and weights up to the given sizes.
  static Result<CudaLinear> make(kernels::Dtype dtype, int32_t max_rows, int32_t max_outputs, int32_t max_inputs);

  // Whether run and run_silu of m rows make x themselves of a NormPrologue; with `lora`, completed by adapters.
  bool takes_norm(const DeviceLinear& linear, int32_t m, const kernels::Int4LoraSize& lora = {});

  // Whether run and run_silu of more than kInt4DecodeRows rows may be called with some of them at a time: the same bits.
  bool takes_parts(const DeviceLinear& linear) const;

  // y [m, all outputs] = x W^T; a bias is left to what follows. More than kInt4DecodeRows rows must have been run once
  // before they are captured in a graph, as in kernels/int4/int4_gemm_cuda.h.
  void run(const DeviceLinear& linear, const DeviceRows& x, const DeviceRows& y, int32_t m,
           const kernels::Stream& stream, const ProductExtras& extras = {});

  // y [m, outputs of gate] = silu(gate) * up, for linears that fuse it.
  void run_silu(const DeviceLinear& gate_up, const DeviceRows& x, const DeviceRows& y, int32_t m,
                const kernels::Stream& stream, const ProductExtras& extras = {});

  // See kernels/int4/int4_gemm_cuda.h.
  bool takes_lora(const DeviceLinear& linear, int32_t m, const kernels::LoraLinear& lora, int32_t max_rank) const;
  // Likewise, where takes_lora.
  bool takes_x_for_lora(const DeviceLinear& linear, int32_t m, const kernels::Int4LoraSize& lora);
  int32_t lora_blocks(const DeviceLinear& linear, int32_t m, const kernels::Int4LoraSize& lora);

  // out [m, n] in float = x weight^T.
  void run_head(const void* weight, int32_t n, int32_t k, const DeviceRows& x, float* out, int64_t out_stride,
                int32_t m, const kernels::Stream& stream);

 private:
  CudaLinear(kernels::Dtype dtype, kernels::Int4Gemm int4, kernels::LibraryGemm library)
      : dtype_(dtype), int4_(std::move(int4)), library_(std::move(library)) {}

  struct Dense {
    const void* weight;
    int32_t n, k;
  };
  void run_dense(const Dense& dense, const DeviceRows& x, void* out, int64_t out_stride, kernels::Dtype out_dtype,
                 int32_t m, const kernels::Stream& stream);

  kernels::Dtype dtype_;
  kernels::Int4Gemm int4_;
  kernels::LibraryGemm library_;
};

}  // namespace lorikeet::model
