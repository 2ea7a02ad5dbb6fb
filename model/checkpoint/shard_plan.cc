#include "model/checkpoint/shard_plan.h"

#include <algorithm>

namespace lorikeet::model {
namespace {

constexpr int kMaxRanks = 64;

// The largest unit that divides `total` and shares out evenly; else the largest that divides it and suffices for all.
int32_t unit_of(int32_t total, int ranks) {
  int32_t fallback = 1;
  for (int32_t unit = 128; unit >= 1; unit /= 2) {
    if (total % unit != 0 || total / unit < ranks) continue;
    if (total / unit % ranks == 0) return unit;
    fallback = std::max(fallback, unit);
  }
  return fallback;
}

// Whole units, the first ranks one more where they do not divide; the last unit may be cut short by `total`.
Range cut(int32_t total, int32_t unit, int rank, int ranks) {
  const int32_t units = (total + unit - 1) / unit;
  const int32_t each = units / ranks, more = units % ranks;
  const int32_t begin = rank * each + std::min(rank, more);
  const int32_t end = begin + each + (rank < more ? 1 : 0);
  return {begin * unit, std::min(end * unit, total)};
}

int32_t intermediate_unit(const ModelConfig& config, int ranks) {
  const int32_t group = config.quant.group_size;
  if (config.quant.method != QuantMethod::none && group > 0 &&
      (config.intermediate_size + group - 1) / group >= ranks) {
    return group;
  }
  return unit_of(config.intermediate_size, ranks);
}

}  // namespace

std::string_view module_name_of(Projection p) {
  constexpr std::array<std::string_view, kNumProjections> names = {
      "self_attn.q_proj", "self_attn.k_proj", "self_attn.v_proj", "self_attn.o_proj",
      "mlp.gate_proj",    "mlp.up_proj",      "mlp.down_proj"};
  return names[static_cast<size_t>(p)];
}

int32_t output_size(const ModelConfig& config, Projection p) {
  switch (p) {
    case Projection::q:
      return config.num_heads * config.head_dim;
    case Projection::k:
    case Projection::v:
      return config.num_kv_heads * config.head_dim;
    case Projection::gate:
    case Projection::up:
      return config.intermediate_size;
    case Projection::o:
    case Projection::down:
      return config.hidden_size;
  }
  return 0;
}

int32_t input_size(const ModelConfig& config, Projection p) {
  switch (p) {
    case Projection::o:
      return config.num_heads * config.head_dim;
    case Projection::down:
      return config.intermediate_size;
    default:
      return config.hidden_size;
  }
}

Result<ShardPlan> ShardPlan::make(const ModelConfig& config, int size) {
  if (size < 1 || size > kMaxRanks) return fail("a tensor-parallel size of {}: must be from 1 to {}", size, kMaxRanks);
  if (config.num_heads % size != 0) {
    return fail("{} attention heads do not divide by a tensor-parallel size of {}", config.num_heads, size);
  }
  if (config.num_kv_heads % size != 0 && size % config.num_kv_heads != 0) {
    return fail("{} KV heads neither divide by a tensor-parallel size of {} nor divide it", config.num_kv_heads, size);
  }
  if (config.intermediate_size < size) {
    return fail("an intermediate size of {} cannot be cut over {} ranks", config.intermediate_size, size);
  }
  if (config.vocab_size < size) {
    return fail("a vocabulary of {} cannot be cut over {} ranks", config.vocab_size, size);
  }
  ShardPlan plan;
  plan.config_ = config;
  const int32_t heads = config.num_heads / size;
  const int32_t replicas = std::max(1, size / config.num_kv_heads);
  const int32_t kv_heads = std::max(1, config.num_kv_heads / size);
  const int32_t mlp_unit = intermediate_unit(config, size);
  const int32_t vocab_unit = unit_of(config.vocab_size, size);
  for (int rank = 0; rank < size; ++rank) {
    RankShard shard;
    shard.heads = {rank * heads, (rank + 1) * heads};
    shard.kv_heads = {rank / replicas * kv_heads, (rank / replicas + 1) * kv_heads};
    shard.intermediate = cut(config.intermediate_size, mlp_unit, rank, size);
    shard.vocab = cut(config.vocab_size, vocab_unit, rank, size);
    plan.shards_.push_back(shard);
  }
  return plan;
}

Range ShardPlan::outputs(Projection p, int rank) const {
  const RankShard& part = shard(rank);
  const int32_t dim = config_.head_dim;
  switch (p) {
    case Projection::q:
      return {part.heads.begin * dim, part.heads.end * dim};
    case Projection::k:
    case Projection::v:
      return {part.kv_heads.begin * dim, part.kv_heads.end * dim};
    case Projection::gate:
    case Projection::up:
      return part.intermediate;
    default:
      return {0, config_.hidden_size};
  }
}

Range ShardPlan::inputs(Projection p, int rank) const {
  const RankShard& part = shard(rank);
  switch (p) {
    case Projection::o:
      return {part.heads.begin * config_.head_dim, part.heads.end * config_.head_dim};
    case Projection::down:
      return part.intermediate;
    default:
      return {0, config_.hidden_size};
  }
}

uint64_t ShardPlan::kv_bytes_per_position(int rank, uint64_t element_bytes) const {
  const uint64_t scale_bytes = element_bytes == 1 ? sizeof(float) : 0;
  return 2 * static_cast<uint64_t>(config_.num_layers) * static_cast<uint64_t>(shard(rank).kv_heads.size()) *
         (static_cast<uint64_t>(config_.head_dim) * element_bytes + scale_bytes);
}

}  // namespace lorikeet::model
