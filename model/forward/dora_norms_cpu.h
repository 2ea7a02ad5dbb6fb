// The norms that a DoRA adapter (Liu et al., 2024) needs of the base weights.
#pragma once

#include <vector>

#include "model/adapter/adapter.h"
#include "model/checkpoint/weights.h"

namespace lorikeet::model {

// RankModel::dora_squared_norms: one entry per (layer, projection) that `part` has, in that order; without magnitude an
// entry is empty.
std::vector<std::vector<float>> dora_squared_norms_cpu(const Adapter& part, const RankWeights& weights);

}  // namespace lorikeet::model
