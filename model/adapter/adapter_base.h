// What an adapter needs of the base checkpoint's tensors, beyond its configuration.
#pragma once

#include <cstdint>
#include <vector>

#include "kernels/base/error.h"
#include "model/adapter/adapter.h"
#include "model/adapter/adapter_scan.h"
#include "model/config/config.h"

namespace lorikeet::model {

// Copies of the base's embedding or lm_head in an adapter (PEFT saves them when either is a target) must be the weights
// of the checkpoint in config.dir, within the rounding of their types: otherwise the adapter was trained over another
// base, or changed it.
Result<void> check_base_copies(const std::vector<BaseCopy>& copies, const ModelConfig& config);

// Qwen's padding recipe for quantised checkpoints (13696 -> 14336) interleaves zero neurons with the real ones.
// Gives the places of the `width` real neurons of the checkpoint in config.dir, or says why they cannot be told.
Result<std::vector<int32_t>> find_unpadded_neurons(const ModelConfig& config, int32_t width);

enum class MlpSide : uint8_t { none, outputs, inputs };  // which side of a projection are the MLP's neurons
MlpSide mlp_side_of(Projection p);

// Moves the rows of B and the magnitudes (outputs) or the columns of A (inputs) to the places `neurons` among `all`,
// zeros elsewhere.
void spread_neurons(const std::vector<int32_t>& neurons, MlpSide side, int32_t all, LoraPair& pair);

}  // namespace lorikeet::model
