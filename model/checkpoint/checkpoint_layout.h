// Whether a checkpoint's headers hold the model that its configuration describes: everything that can be told without
// reading weights, so that a bad checkpoint is refused before minutes of loading.
#pragma once

#include "kernels/base/error.h"
#include "model/checkpoint/checkpoint.h"
#include "model/config/config.h"

namespace lorikeet::model {

// Every tensor that the model needs is there, of the right shape and type, and none that it has no place for: ignoring
// one would serve another model than was saved.
Result<void> check_layout(const Checkpoint& checkpoint, const ModelConfig& config);

}  // namespace lorikeet::model
