// adapter_config.json: whatever is accepted answers for any module, in bounded time.
#include <cmath>
#include <cstdint>
#include <cstdlib>
#include <string_view>

#include "model/adapter/adapter_config.h"

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  const auto config = lorikeet::model::AdapterConfig::parse({reinterpret_cast<const char*>(data), size}, "fuzz");
  if (!config) {
    if (config.error().message.empty()) std::abort();
    return 0;
  }
  for (const std::string_view module :
       {"model.layers.0.self_attn.q_proj", "transformer.h.11.mlp.c_proj", "lm_head", "", "."}) {
    (void)config->targets(module);
    const auto rank = config->rank_of(module);
    if (rank && *rank < 1) std::abort();
    const auto scale = config->scale_of(module);
    if (scale && !std::isfinite(*scale)) std::abort();
  }
  return 0;
}
