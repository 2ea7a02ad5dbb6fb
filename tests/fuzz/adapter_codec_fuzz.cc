// One rank's part of an adapter, as it comes from the head. Packed: what is read lies within its bytes, at sizes that fit
// the plan. As stored: what decodes fits the plan, and encodes to what decodes to the same.
#include <cstdint>
#include <cstdlib>
#include <vector>

#include "model/adapter/adapter.h"
#include "model/adapter/adapter_slice.h"

using namespace lorikeet::model;

namespace {

ShardPlan plan() {
  ModelConfig config;
  config.hidden_size = 4;
  config.num_layers = 2;
  config.num_heads = 2;
  config.num_kv_heads = 1;
  config.head_dim = 2;
  config.intermediate_size = 6;
  config.vocab_size = 5;
  return *ShardPlan::make(config, 2);
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  static const ShardPlan kPlan = plan();
  for (const SliceLayout layout : {SliceLayout::cpu_f32, SliceLayout::cuda_f16, SliceLayout::cuda_bf16}) {
    const auto slice = read_slice({data, size}, kPlan, 1, layout);
    if (!slice) {
      if (slice.error().message.empty()) std::abort();
      continue;
    }
    const uint64_t element = layout == SliceLayout::cpu_f32 ? 4 : 2;
    for (const SlicePair& pair : slice->places) {
      const auto rank = static_cast<uint64_t>(pair.rank);
      if (pair.rank > 0 && (pair.a + element * rank * static_cast<uint64_t>(pair.inputs) > pair.b ||
                            pair.b + element * rank * static_cast<uint64_t>(pair.outputs) > size)) {
        std::abort();
      }
    }
  }
  const auto part = decode_adapter({data, size}, kPlan, 1);
  if (!part) {
    if (part.error().message.empty()) std::abort();
    return 0;
  }
  for (const LoraLayer& layer : part->layers) {
    for (const Projection p : kProjections) {
      const auto& pair = layer[static_cast<size_t>(p)];
      if (!pair) continue;
      if (pair->inputs != kPlan.inputs(p, 1).size() || pair->outputs != kPlan.outputs(p, 1).size()) std::abort();
      if (pair->a.size() != static_cast<size_t>(pair->rank) * static_cast<size_t>(pair->inputs)) std::abort();
      if (pair->b.size() != static_cast<size_t>(pair->rank) * static_cast<size_t>(pair->outputs)) std::abort();
    }
  }
  const std::vector<uint8_t> encoded = encode_adapter(*part);
  const auto again = decode_adapter(encoded, kPlan, 1);
  if (!again || encode_adapter(*again) != encoded) std::abort();
  return 0;
}
