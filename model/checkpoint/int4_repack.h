// From the packings of GPTQ, AWQ and compressed-tensors to the kernels' forms, for one rank's part of one module.
#pragma once

#include <cstdint>
#include <vector>

#include "kernels/dense/dense_weight.h"
#include "kernels/int4/base/int4_weight.h"
#include "model/checkpoint/quantised_module.h"
#include "model/checkpoint/shard_plan.h"

namespace lorikeet::model {

// The weight of outputs x inputs of a checked module that has its bytes. Inputs are sorted by group where a group's
// inputs do not lie together (act-order); the sort stays inside `inputs`, so that it works at every tensor-parallel
// size.
//
// Values of 8 bits become two products of 4, exactly: q - z = 16 (q / 16 - z / 16) + (q % 16 - z % 16), so every input
// is stored twice, once with 16 times its scale, and the permutation gives both the same x. They take 8 bits, as in the
// file.
kernels::Int4Weight repack_int4(const QuantisedModule& module, Range outputs, Range inputs);

// The same as float32 values, for devices whose kernels take either 4 bits or floats.
kernels::DenseWeight dequantise(const QuantisedModule& module, Range outputs, Range inputs);

// The order in which a shard's inputs are stored, and its runs; group_of[i] is the group of the shard's input i.
struct RunLayout {
  std::vector<int32_t> source;     // [stored k]: the shard's input, -1 = padding
  std::vector<int32_t> run_begin;  // [runs + 1]
  std::vector<int32_t> run_group;  // [runs]
  bool plain = true;               // source is 0, 1, 2, ...
};
RunLayout layout_runs(const std::vector<int32_t>& group_of);

}  // namespace lorikeet::model
