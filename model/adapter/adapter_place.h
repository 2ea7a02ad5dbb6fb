// Where the pair of an adapted module belongs in a base model.
#pragma once

#include <cstdint>
#include <optional>
#include <string_view>
#include <vector>

#include "model/checkpoint/shard_plan.h"
#include "model/config/config.h"

namespace lorikeet::model {

struct AdapterPlace {
  std::vector<Projection> projections;  // empty: embedding or lm_head
  int32_t layer = 0;
  int32_t inputs = 0, outputs = 0;  // of the base's weight
};

// Nothing where the base has no such module.
std::optional<AdapterPlace> find_adapter_place(const ModelConfig& config, std::string_view module, bool is_embedding);

}  // namespace lorikeet::model
