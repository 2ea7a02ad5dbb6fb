// config.json: whatever is accepted has sizes that can be multiplied, and is cut over every number of ranks or refused.
#include <cstdint>
#include <cstdlib>
#include <string_view>

#include "model/checkpoint/shard_plan.h"
#include "model/config/config.h"
#include "model/config/quant_config.h"
#include "model/config/strict_json.h"

using namespace lorikeet::model;

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  const auto object = parse_json({reinterpret_cast<const char*>(data), size}, "fuzz", {1u << 20, 32, 100'000});
  if (!object || !object->is_object()) return 0;
  if (const auto it = object->find("quantization_config"); it != object->end() && it->is_object()) {
    const auto quant = parse_quant_config(*it, "fuzz");
    if (quant && (quant->group_size == 0 || quant->group_size < -1)) std::abort();
  }
  const auto config = parse_model_config(*object, "fuzz");
  if (!config) {
    if (config.error().message.empty()) std::abort();
    return 0;
  }
  if (config->hidden_size < 1 || config->num_layers < 1 || config->head_dim < 2 || config->vocab_size < 1) std::abort();
  for (const int ranks : {1, 2, 3, 4, 8, 64}) {
    const auto plan = ShardPlan::make(*config, ranks);
    if (!plan) continue;
    int32_t neurons = 0, rows = 0;
    for (int rank = 0; rank < ranks; ++rank) {
      const RankShard& shard = plan->shard(rank);
      if (shard.intermediate.begin != neurons || shard.vocab.begin != rows) std::abort();
      if (shard.intermediate.size() < 1 || shard.vocab.size() < 1 || shard.kv_heads.size() < 1) std::abort();
      if (shard.kv_heads.end > config->num_kv_heads) std::abort();
      neurons = shard.intermediate.end;
      rows = shard.vocab.end;
    }
    if (neurons != config->intermediate_size || rows != config->vocab_size) std::abort();
  }
  return 0;
}
