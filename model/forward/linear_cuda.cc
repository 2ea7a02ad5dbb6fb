#include "model/forward/linear_cuda.h"

#include <glog/logging.h>

#include <utility>

#include "kernels/dense/dense_gemm_cuda.h"

namespace lorikeet::model {

Result<CudaLinear> CudaLinear::make(kernels::Dtype dtype, int32_t max_rows, int32_t max_outputs, int32_t max_inputs) {
  auto int4 = kernels::Int4Gemm::make(max_rows, max_outputs, max_inputs);
  if (!int4) return tl::unexpected(int4.error());
  auto library = kernels::LibraryGemm::make();
  if (!library) return tl::unexpected(library.error());
  return CudaLinear(dtype, *std::move(int4), *std::move(library));
}

bool CudaLinear::takes_norm(const DeviceLinear& linear, int32_t m, const kernels::Int4LoraSize& lora) {
  if (m > kernels::kNormRows || linear.products.size() != 1) return false;
  const auto* packed = std::get_if<kernels::PackedInt4Weight>(&linear.products[0].weight);
  return packed != nullptr && int4_.takes_norm(*packed, m, dtype_, lora);
}

bool CudaLinear::takes_parts(const DeviceLinear& linear) const {
  return linear.products.size() == 1 && int4_.takes_parts() &&
         std::holds_alternative<kernels::PackedInt4Weight>(linear.products[0].weight);
}

void CudaLinear::run(const DeviceLinear& linear, const DeviceRows& x, const DeviceRows& y, int32_t m,
                     const kernels::Stream& stream, const ProductExtras& extras) {
  for (const DeviceProduct& product : linear.products) {
    auto* out =
        static_cast<unsigned char*>(y.data) + static_cast<size_t>(product.first_output) * kernels::size_of(dtype_);
    if (const auto* dense = std::get_if<DeviceDense>(&product.weight)) {
      run_dense({dense->data.data(), dense->n, dense->k}, x, out, y.stride, dtype_, m, stream);
      continue;
    }
    kernels::Int4GemmArgs args;
    args.x = x.data;
    args.x_stride = x.stride;
    args.dtype = dtype_;
    args.y = out;
    args.y_stride = y.stride;
    args.m = m;
    args.norm = extras.norm;
    args.lora = extras.lora;
    args.follows_product = extras.follows_product;
    int4_.run(std::get<kernels::PackedInt4Weight>(product.weight), args, stream, extras.follows_sum, extras.of_rows);
  }
}

void CudaLinear::run_silu(const DeviceLinear& gate_up, const DeviceRows& x, const DeviceRows& y, int32_t m,
                          const kernels::Stream& stream, const ProductExtras& extras) {
  CHECK(gate_up.fuses_silu());
  kernels::Int4GemmArgs args;
  args.x = x.data;
  args.x_stride = x.stride;
  args.dtype = dtype_;
  args.y = y.data;
  args.y_stride = y.stride;
  args.m = m;
  args.silu_mul = true;
  args.norm = extras.norm;
  args.lora = extras.lora;
  args.follows_product = extras.follows_product;
  int4_.run(std::get<kernels::PackedInt4Weight>(gate_up.products[0].weight), args, stream, extras.follows_sum,
            extras.of_rows);
}

bool CudaLinear::takes_lora(const DeviceLinear& linear, int32_t m, const kernels::LoraLinear& lora,
                            int32_t max_rank) const {
  if (linear.products.size() != 1) return false;
  const auto* packed = std::get_if<kernels::PackedInt4Weight>(&linear.products[0].weight);
  return packed != nullptr && int4_.takes_lora(*packed, m, lora, max_rank);
}

bool CudaLinear::takes_x_for_lora(const DeviceLinear& linear, int32_t m, const kernels::Int4LoraSize& lora) {
  return int4_.takes_x_for_lora(std::get<kernels::PackedInt4Weight>(linear.products[0].weight), m, dtype_, lora);
}

int32_t CudaLinear::lora_blocks(const DeviceLinear& linear, int32_t m, const kernels::Int4LoraSize& lora) {
  return int4_.lora_blocks(std::get<kernels::PackedInt4Weight>(linear.products[0].weight), m, dtype_, lora);
}

void CudaLinear::run_head(const void* weight, int32_t n, int32_t k, const DeviceRows& x, float* out, int64_t out_stride,
                          int32_t m, const kernels::Stream& stream) {
  run_dense({weight, n, k}, x, out, out_stride, kernels::Dtype::f32, m, stream);
}

void CudaLinear::run_dense(const Dense& dense, const DeviceRows& x, void* out, int64_t out_stride,
                           kernels::Dtype out_dtype, int32_t m, const kernels::Stream& stream) {
  if (m <= kernels::kDenseGemmRows) {
    kernels::DenseGemmArgs args;
    args.x = x.data;
    args.x_stride = x.stride;
    args.weight = dense.weight;
    args.dtype = dtype_;
    args.out = out;
    args.out_stride = out_stride;
    args.out_dtype = out_dtype;
    args.m = m;
    args.n = dense.n;
    args.k = dense.k;
    kernels::dense_gemm_cuda(args, stream);
    return;
  }
  kernels::LibraryGemmArgs args;
  args.x = x.data;
  args.x_stride = x.stride;
  args.weight = dense.weight;
  args.dtype = dtype_;
  args.out = out;
  args.out_stride = out_stride;
  args.out_dtype = out_dtype;
  args.m = m;
  args.n = dense.n;
  args.k = dense.k;
  library_.run(args, stream);
}

}  // namespace lorikeet::model
