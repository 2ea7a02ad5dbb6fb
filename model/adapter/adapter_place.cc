#include "model/adapter/adapter_place.h"

#include "model/checkpoint/tensor_names.h"

namespace lorikeet::model {

std::optional<AdapterPlace> find_adapter_place(const ModelConfig& config, std::string_view module, bool is_embedding) {
  if (is_embedding) {
    if (module != embedding_name(config)) return std::nullopt;
    return AdapterPlace{{}, 0, config.vocab_size, config.hidden_size};
  }
  if (module == kLmHeadName) return AdapterPlace{{}, 0, config.hidden_size, config.vocab_size};
  const auto found = find_layer_module(config, module);
  if (!found) return std::nullopt;
  AdapterPlace place{found->projections, found->layer, 0, 0};
  place.inputs = input_size(config, place.projections[0]);
  place.outputs = place_of(config, place.layer, place.projections[0]).outputs;
  return place;
}

}  // namespace lorikeet::model
