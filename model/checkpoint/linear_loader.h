// Reads and checks the tensors of a model. Loading uses it, and so does the check whether a checkpoint can be served, so the
// two always agree.
#pragma once

#include <initializer_list>
#include <optional>
#include <string>
#include <variant>
#include <vector>

#include "kernels/base/error.h"
#include "kernels/dense/dense_weight.h"
#include "model/checkpoint/checkpoint.h"
#include "model/checkpoint/int4_repack.h"
#include "model/checkpoint/shard_plan.h"
#include "model/checkpoint/weights.h"

namespace lorikeet::model {

// How weights of 8 bits are given to kernels, none of which takes 8 bits.
enum class EightBit : uint8_t {
  int4_pairs,  // two products of 4 bits, as the CPU's kernels do: exact, 8 bits per weight
  floats,      // de-quantised at load
};

// The part of a projection that `rank` holds, in the kernels' form.
Result<LinearWeights> load_linear(const Checkpoint& checkpoint, const ModelConfig& config, const ShardPlan& plan,
                                  int rank, int32_t layer, Projection p, EightBit eight_bit);

// Refuses what load_linear() would, for the whole projection, without memory for its weight.
Result<void> check_linear(const Checkpoint& checkpoint, const ModelConfig& config, int32_t layer, Projection p);

// The values of a vector of `size` floats; refuses other shapes, other dtypes, NaN and infinities.
Result<std::vector<float>> load_vector(const Checkpoint& checkpoint, const std::string& name, int32_t size);

// Rows `part` of a matrix of f32, f16 or bf16, in that type and in memory of its own; refuses like load_vector.
Result<kernels::DenseWeight> load_matrix(const Checkpoint& checkpoint, const std::string& name, int32_t rows,
                                         int32_t columns, Range part);

// Refuses what load_matrix() would.
Result<void> check_matrix(const Checkpoint& checkpoint, const std::string& name, int32_t rows, int32_t columns);

// Rows `part` of lm_head, which has weights of its own: as load_matrix gives them, or floats of a quantised one (a draw
// reads it once, and it is one matrix of 300).
Result<kernels::DenseWeight> load_head(const Checkpoint& checkpoint, const ModelConfig& config, Range part);

// Refuses what load_head() would.
Result<void> check_head(const Checkpoint& checkpoint, const ModelConfig& config);

// Tied embeddings that are stored twice nevertheless must be equal, within the rounding of their types.
Result<void> check_tied_head(const Checkpoint& checkpoint, const ModelConfig& config);

// Whether a tensor of the checkpoint and one that is in memory hold the same weights (SameWeights).
Result<bool> is_same(const TensorView& stored, const TensorView& loaded);

// Refuses other shapes and types that are no floats.
Result<void> expect_floats(const TensorView& tensor, std::initializer_list<int64_t> shape);

}  // namespace lorikeet::model
