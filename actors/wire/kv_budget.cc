#include "actors/wire/kv_budget.h"

#include <algorithm>
#include <limits>

namespace lorikeet::actors {

Result<int32_t> context_length(const ServerOptions& options, const model::ModelConfig& config) {
  int64_t longest = config.max_position_embeddings;
  if (config.yarn) {
    const double stretched = static_cast<double>(config.yarn->factor) * config.yarn->original_max_position_embeddings;
    longest = std::max(longest, static_cast<int64_t>(stretched));
  }
  longest = std::min<int64_t>(longest, std::numeric_limits<int32_t>::max());
  if (options.max_model_len > longest) {
    return fail("--max-model-len {} is more than the {} positions of the checkpoint {}", options.max_model_len, longest,
                options.model);
  }
  if (options.max_model_len == 1)
    return fail("--max-model-len 1: a sequence has a token of the prompt and one generated");
  if (longest < 2) return fail("the checkpoint {} has {} positions", options.model, longest);
  return options.max_model_len > 0 ? options.max_model_len : static_cast<int32_t>(longest);
}

Result<int32_t> blocks_within(uint64_t budget, uint64_t block_bytes, const ServerOptions& options,
                              int32_t max_model_len) {
  const auto per_sequence = static_cast<uint64_t>((max_model_len + options.block_size - 1) / options.block_size);
  const uint64_t useful = per_sequence * static_cast<uint64_t>(options.max_num_seqs);
  const uint64_t blocks = std::min(useful, budget / block_bytes);
  if (blocks < 1) return fail("{} bytes of KV cache hold no block of {} bytes", budget, block_bytes);
  return static_cast<int32_t>(std::min<uint64_t>(blocks, std::numeric_limits<int32_t>::max()));
}

uint64_t cpu_block_bytes(const model::ShardPlan& plan, int rank, int32_t block_size) {
  return plan.kv_bytes_per_position(rank, sizeof(float)) * static_cast<uint64_t>(block_size);
}

}  // namespace lorikeet::actors
