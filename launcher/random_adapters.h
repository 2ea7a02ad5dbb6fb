// Adapters with random weights for a model's sizes, as PEFT saves them: for measuring without trained ones.
#pragma once

#include <cstdint>
#include <filesystem>

#include "kernels/base/error.h"
#include "model/config/config.h"

namespace lorikeet::launcher {

// Writes adapter_config.json and adapter_model.safetensors (fp16, rank `rank` on every linear layer) into `dir`, which
// is made. Different seeds give different contents.
Result<void> write_random_adapter(const std::filesystem::path& dir, const model::ModelConfig& config, int32_t rank,
                                  uint64_t seed);

}  // namespace lorikeet::launcher
