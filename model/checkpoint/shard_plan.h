// How a model is cut over the ranks of a tensor-parallel group. One plan cuts the base weights and every adapter.
//
// Column-parallel (q, k, v, gate, up): the outputs are cut. Row-parallel (o, down): the inputs are cut, the partial
// outputs are added by an all-reduce. Attention is cut by heads; with fewer KV heads than ranks each KV head is
// replicated on size / num_kv_heads neighbouring ranks. The intermediate dimension is cut by whole quantisation groups,
// unevenly where they do not divide (107 groups at TP 2: 54 + 53). Where a model has no groups, or fewer than ranks, it
// is cut by the largest unit of 128, 64, 32, ... neurons that gives every rank a share (a group may then be on two
// ranks: both hold its scales). The vocabulary is cut for lm_head, unevenly where need be.
#pragma once

#include <array>
#include <cstdint>
#include <string_view>
#include <vector>

#include "kernels/base/error.h"
#include "model/config/config.h"

namespace lorikeet::model {

enum class Projection : uint8_t { q, k, v, o, gate, up, down };
inline constexpr int kNumProjections = 7;
inline constexpr std::array<Projection, kNumProjections> kProjections = {
    Projection::q, Projection::k, Projection::v, Projection::o, Projection::gate, Projection::up, Projection::down};

std::string_view module_name_of(Projection p);  // "self_attn.q_proj", ... "mlp.down_proj"
constexpr bool is_row_parallel(Projection p) {
  return p == Projection::o || p == Projection::down;
}

struct Range {
  int32_t begin = 0;
  int32_t end = 0;
  int32_t size() const { return end - begin; }
  bool operator==(const Range&) const = default;
};

struct RankShard {
  Range heads;         // query heads
  Range kv_heads;      // KV heads (shared with neighbours where replicated)
  Range intermediate;  // neurons of the MLP
  Range vocab;         // rows of lm_head
};

class ShardPlan {
 public:
  // Refuses with a sentence: heads that do not divide by `size`, KV heads that neither divide nor are divided, fewer
  // neurons or vocabulary rows than ranks.
  static Result<ShardPlan> make(const ModelConfig& config, int size);

  int size() const { return static_cast<int>(shards_.size()); }
  const RankShard& shard(int rank) const { return shards_.at(static_cast<size_t>(rank)); }

  // Outputs [begin, end) and inputs [begin, end) of a projection's full weight that a rank holds.
  Range outputs(Projection p, int rank) const;
  Range inputs(Projection p, int rank) const;

  // Bytes of a rank's keys and values of one position, all layers together; elements of one byte come with a scale for
  // every head.
  uint64_t kv_bytes_per_position(int rank, uint64_t element_bytes) const;

  const ModelConfig& config() const { return config_; }

 private:
  ModelConfig config_;
  std::vector<RankShard> shards_;
};

// Full sizes of a projection's weight.
int32_t output_size(const ModelConfig& config, Projection p);
int32_t input_size(const ModelConfig& config, Projection p);

}  // namespace lorikeet::model
