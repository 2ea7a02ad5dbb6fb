// From the packings of GPTQ, AWQ and compressed-tensors to the kernels' one form, for one rank's part of one module.
// Layouts: formats reference, section 3 (AutoGPTQ qlinear_cuda_old.py, AutoAWQ modules/linear/gemm.py,
// compressed-tensors compressors/pack_quantized).
#pragma once

#include <cstdint>
#include <optional>
#include <string>

#include "kernels/base/error.h"
#include "kernels/int4/base/int4_weight.h"
#include "model/checkpoint/safetensors.h"
#include "model/checkpoint/shard_plan.h"
#include "model/config/config.h"

namespace lorikeet::model {

// The tensors of one quantised linear module, W [n, k].
struct Int4Module {
  QuantMethod method = QuantMethod::gptq;
  int32_t n = 0, k = 0;
  int32_t groups = 0;                     // rows of scale and zero that the file holds
  int32_t group_size = 0;                 // inputs per group where there is no group index
  bool must_be_symmetric = false;         // the configuration says so: every zero is 8
  TensorView weight;                      // gptq [k/8, n], awq [k, n/8], compressed-tensors [n, ceil(k/8)]
  TensorView scales;                      // [groups, n]; compressed-tensors [n, groups]
  std::optional<TensorView> zeros;        // gptq, awq [groups, n/8]; compressed-tensors [ceil(n/8), groups]; absent: 8
  std::optional<TensorView> group_index;  // [k]; absent: input / group_size
};

// The dtypes and sizes that repacking depends on; reads no value.
Result<void> check_int4_shapes(const Int4Module& module);

// The values that repacking depends on: group indices in range; finite scales; no stored GPTQ v1 zero of 15, which one
// implementation takes for 16 and another for 0; no symmetric GPTQ file of the other version (v1 stores a zero less
// one, v2 as it is: reading one as the other shifts every weight). The shapes must have been checked.
Result<void> check_int4_values(const Int4Module& module);

// The weight of outputs x inputs of a checked module. Inputs are sorted by group where a group's inputs do not lie
// together (act-order); the sort stays inside `inputs`, so that it works at every tensor-parallel size.
kernels::Int4Weight repack_int4(const Int4Module& module, Range outputs, Range inputs);

// The order in which a shard's inputs are stored, and its runs; group_of[i] is the group of the shard's input i.
struct RunLayout {
  std::vector<int32_t> source;     // [stored k]: the shard's input, -1 = padding
  std::vector<int32_t> run_begin;  // [runs + 1]
  std::vector<int32_t> run_group;  // [runs]
  bool plain = true;               // source is 0, 1, 2, ...
};
RunLayout layout_runs(const std::vector<int32_t>& group_of);

}  // namespace lorikeet::model
