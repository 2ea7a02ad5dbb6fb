// One projection of one layer, cut and in the kernels' form; and the small checked readers that loading needs.
#pragma once

#include <initializer_list>
#include <string>
#include <vector>

#include "kernels/base/error.h"
#include "kernels/dense/dense_weight.h"
#include "model/checkpoint/checkpoint.h"
#include "model/checkpoint/int4_repack.h"
#include "model/checkpoint/shard_plan.h"
#include "model/checkpoint/weights.h"

namespace lorikeet::model {

// The part of a projection that `rank` holds. A module is quantised when its packed tensors are there (checkpoints
// leave single modules unquantised), and it may not be both.
Result<LinearWeights> load_linear(const Checkpoint& checkpoint, const ShardPlan& plan, int rank, int32_t layer,
                                  Projection p);

// The tensors of a quantised module with `outputs` rows and `inputs` columns, found; their shapes checked, not their
// values.
Result<Int4Module> find_int4_module(const Checkpoint& checkpoint, const QuantConfig& quant, const std::string& module,
                                    int32_t outputs, int32_t inputs);

bool is_quantised(const Checkpoint& checkpoint, const QuantConfig& quant, const std::string& module);

// Elements `part` of a vector of `size` floats; refuses other shapes, other dtypes, NaN and infinities.
Result<std::vector<float>> load_vector(const TensorView& tensor, int32_t size, Range part);

// Refuses other shapes and types that are no floats.
Result<void> expect_floats(const TensorView& tensor, std::initializer_list<int64_t> shape);

// A matrix of f32, f16 or bf16 as it lies in the file.
Result<kernels::DenseWeight> view_matrix(const TensorView& tensor, int32_t rows, int32_t columns);

}  // namespace lorikeet::model
