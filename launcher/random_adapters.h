// Adapters with random weights for a model's sizes, as PEFT saves them: for measuring without trained ones.
#pragma once

#include <cstdint>
#include <filesystem>
#include <string>
#include <vector>

#include "kernels/base/error.h"
#include "model/config/config.h"

namespace lorikeet::launcher {

// Whether the model has linear layers whose names end so.
Result<void> check_targets(const model::ModelConfig& config, const std::vector<std::string>& targets);

// Writes adapter_config.json and adapter_model.safetensors (fp16, rank `rank` on the linear layers whose names end with one
// of `targets`, such as q_proj; on all where there is none) into `dir`, which is made. Different seeds give different
// contents. Fails where the model has no such layer.
Result<void> write_random_adapter(const std::filesystem::path& dir, const model::ModelConfig& config, int32_t rank,
                                  uint64_t seed, const std::vector<std::string>& targets = {});

// `count` of them, of the seeds 0, 1 ..., into DIR/0, DIR/1 ...; by several threads, since a file's pages take longer than
// its content.
Result<void> write_random_adapters(const std::filesystem::path& dir, int32_t count, const model::ModelConfig& config,
                                   int32_t rank, const std::vector<std::string>& targets = {});

// Bytes of its tensors.
uint64_t random_adapter_bytes(const model::ModelConfig& config, int32_t rank,
                              const std::vector<std::string>& targets = {});

}  // namespace lorikeet::launcher
