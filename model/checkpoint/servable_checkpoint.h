// The one place that says whether a checkpoint can be served: loading goes through it, and so does `lorikeet inspect`.
#pragma once

#include <filesystem>

#include "kernels/base/error.h"
#include "model/checkpoint/checkpoint.h"
#include "model/config/config.h"

namespace lorikeet::model {

struct ServableCheckpoint {
  Checkpoint checkpoint;
  ModelConfig config;  // with the version of GPTQ that the zeros show
};

// Opens the checkpoint in `dir` and checks everything that its headers tell, so that a bad one is refused before
// minutes of loading.
Result<ServableCheckpoint> open_servable(const std::filesystem::path& dir, const ModelConfig& config);

// Checks the values of all tensors, as loading does for those that it takes. Reads everything in which there can be
// something wrong, which is all but packed weights, and keeps nothing.
Result<void> check_values(const ServableCheckpoint& servable);

}  // namespace lorikeet::model
