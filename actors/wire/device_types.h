// The type that a rank's activations have by the options, and with it the layout of its adapter slots. The head, which packs
// adapters for the slots, and the ranks must come to the same.
#pragma once

#include <string>

#include "actors/wire/options.h"
#include "kernels/base/dtype.h"
#include "model/adapter/adapter_slice.h"
#include "model/config/config.h"

namespace lorikeet::actors {

// On a CUDA device: F16 or BF16.
inline kernels::Dtype activation_dtype(const ServerOptions& options, const model::ModelConfig& config) {
  const std::string& wanted = options.dtype == "auto" ? config.torch_dtype : options.dtype;
  return wanted == "bfloat16" ? kernels::Dtype::bf16 : kernels::Dtype::f16;
}

inline model::SliceLayout slice_layout(const ServerOptions& options, const model::ModelConfig& config) {
  if (options.device != "cuda") return model::SliceLayout::cpu_f32;
  return activation_dtype(options, config) == kernels::Dtype::bf16 ? model::SliceLayout::cuda_bf16
                                                                   : model::SliceLayout::cuda_f16;
}

}  // namespace lorikeet::actors
