// What the steps of decode_step_gpu_bench are made of: random adapters and ways of drawing.
#pragma once

#include <cstdint>
#include <vector>

#include "model/adapter/adapter.h"
#include "model/checkpoint/shard_plan.h"
#include "model/forward/rank_model.h"

namespace lorikeet::model {

inline constexpr int32_t kBenchLoraRank = 16;

// Cheap pseudo-random numbers: the values of an adapter do not matter, only that they are not zero.
class Numbers {
 public:
  float next() {
    state_ = state_ * 6364136223846793005ULL + 1442695040888963407ULL;
    return static_cast<float>(static_cast<int32_t>(state_ >> 40) - (1 << 23)) * 0x1p-23F;
  }
  int32_t below(int32_t limit) { return static_cast<int32_t>((next() + 1) / 2 * static_cast<float>(limit - 1)); }

 private:
  uint64_t state_ = 1;
};

// This rank's part of an adapter of kBenchLoraRank on every projection.
Adapter random_adapter(const ShardPlan& plan, int rank);

// How a step's tokens are drawn.
struct Draw {
  const char* name = nullptr;
  RowSampling sampling;
};

// Temperature alone first, and what people ask for besides.
std::vector<Draw> draws();

}  // namespace lorikeet::model
