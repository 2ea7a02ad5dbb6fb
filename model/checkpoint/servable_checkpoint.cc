#include "model/checkpoint/servable_checkpoint.h"

#include <algorithm>
#include <optional>
#include <string>
#include <utility>

#include "model/checkpoint/checkpoint_layout.h"
#include "model/checkpoint/linear_loader.h"
#include "model/checkpoint/quantised_module.h"
#include "model/checkpoint/tensor_names.h"

namespace lorikeet::model {
namespace {

// The version of which a symmetric module is: v1 stores its zeros less one. Nothing where the zeros are not those of a
// symmetric module.
std::optional<QuantMethod> version_of(const QuantisedModule& module) {
  const auto words = static_cast<size_t>(module.zeros->entry->elements());
  const uint32_t v1 = module.bits == 8 ? 0x7f7f7f7f : 0x77777777, v2 = module.bits == 8 ? 0x80808080 : 0x88888888;
  const uint32_t first = words > 0 ? word_at(*module.zeros, 0) : 0;
  if (first != v1 && first != v2) return std::nullopt;
  for (size_t i = 1; i < words; ++i) {
    if (word_at(*module.zeros, i) != first) return std::nullopt;
  }
  return first == v1 ? QuantMethod::gptq : QuantMethod::gptq_v2;
}

// A symmetric GPTQ checkpoint shows its version in the zeros of all its modules, whatever the configuration says. Where
// they do not agree the configuration counts, and modules that contradict it are refused when they are read; where it
// says AWQ nothing does.
Result<QuantMethod> gptq_version(const Checkpoint& checkpoint, const ModelConfig& config) {
  const QuantMethod stated = config.quant.method;
  const bool says_awq = stated == QuantMethod::awq;
  if (!says_awq && (!is_gptq(stated) || !config.quant.symmetric)) return stated;
  std::optional<QuantMethod> shown;
  for (int32_t layer = 0; layer < config.num_layers; ++layer) {
    for (const Projection p : kProjections) {
      const ModulePlace place = place_of(config, layer, p);
      if (place.first_output > 0 || !is_quantised(checkpoint, config.quant, place.module)) continue;
      auto module = find_quantised_module(checkpoint, config.quant, place.module, place.outputs, input_size(config, p));
      if (!module) return tl::unexpected(module.error());
      if (module->method == QuantMethod::awq) continue;
      if (auto ok = read_bytes(*module->zeros); !ok) return tl::unexpected(ok.error());
      const auto version = version_of(*module);
      const bool agrees = version && (!shown || *shown == *version);
      if (!agrees && says_awq) {
        return fail(
            "{}: {} is packed as GPTQ does, not as AWQ, which the configuration says, and its zeros do not show "
            "which version of GPTQ it is",
            checkpoint.dir().string(), place.module);
      }
      if (!agrees) return stated;
      shown = version;
    }
  }
  return shown.value_or(stated);
}

}  // namespace

Result<ServableCheckpoint> open_servable(const std::filesystem::path& dir, const ModelConfig& config) {
  auto checkpoint = Checkpoint::open(dir);
  if (!checkpoint) return tl::unexpected(checkpoint.error());
  if (auto ok = check_layout(*checkpoint, config); !ok) return tl::unexpected(ok.error());
  auto version = gptq_version(*checkpoint, config);
  if (!version) return tl::unexpected(version.error());
  ServableCheckpoint servable{*std::move(checkpoint), config};
  servable.config.quant.method = *version;
  return servable;
}

Result<void> check_values(const ServableCheckpoint& servable) {
  const auto& [checkpoint, config] = servable;
  if (auto ok = check_matrix(checkpoint, embedding_name(config) + ".weight", config.vocab_size, config.hidden_size);
      !ok) {
    return ok;
  }
  if (auto ok = config.tie_word_embeddings ? check_tied_head(checkpoint, config) : check_head(checkpoint, config);
      !ok) {
    return ok;
  }
  const auto norm = load_vector(checkpoint, final_norm_name(config) + ".weight", config.hidden_size);
  if (!norm) return tl::unexpected(norm.error());
  for (int32_t layer = 0; layer < config.num_layers; ++layer) {
    for (const NormKind kind : norms_of(config)) {
      const auto of_layer =
          load_vector(checkpoint, norm_name(config, layer, kind) + ".weight", norm_size(config, kind));
      if (!of_layer) return tl::unexpected(of_layer.error());
    }
    for (const Projection p : kProjections) {
      if (auto ok = check_linear(checkpoint, config, layer, p); !ok) return ok;
    }
  }
  return {};
}

}  // namespace lorikeet::model
