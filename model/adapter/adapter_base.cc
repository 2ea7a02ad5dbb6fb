#include "model/adapter/adapter_base.h"

#include <algorithm>
#include <utility>

#include "model/checkpoint/checkpoint.h"
#include "model/checkpoint/linear_loader.h"
#include "model/checkpoint/servable_checkpoint.h"
#include "model/checkpoint/tensor_names.h"

namespace lorikeet::model {
namespace {

// Which outputs (or inputs) of a module are worth 0 throughout.
Result<std::vector<bool>> zero_lines(const Checkpoint& checkpoint, const ModelConfig& config, int32_t layer,
                                     Projection p) {
  const std::string name = place_of(config, layer, p).module;
  const int32_t outputs = output_size(config, p), inputs = input_size(config, p);
  auto module = find_quantised_module(checkpoint, config.quant, name, outputs, inputs);
  if (!module) return tl::unexpected(module.error());
  if (auto ok = read_module(*module, true); !ok) return tl::unexpected(ok.error());
  if (auto ok = check_module_values(*module); !ok) return tl::unexpected(ok.error());
  const kernels::Int4Weight w = repack_int4(*module, {0, outputs}, {0, inputs});
  const bool by_input = mlp_side_of(p) == MlpSide::inputs;
  std::vector<bool> zero(static_cast<size_t>(by_input ? inputs : outputs), true);
  for (int32_t n = 0; n < w.n; ++n) {
    const uint8_t* row = w.q.data() + static_cast<size_t>(n) * static_cast<size_t>(w.k / 2);
    for (int32_t run = 0; run < w.runs(); ++run) {
      const uint8_t zero_point = w.zero[static_cast<size_t>(run) * static_cast<size_t>(w.n) + static_cast<size_t>(n)];
      for (int32_t k = w.run_begin[static_cast<size_t>(run)]; k < w.run_begin[static_cast<size_t>(run) + 1]; ++k) {
        if ((row[k / 2] >> (k % 2 * 4) & 15) == zero_point) continue;
        const int32_t input = w.permutation.empty() ? k : w.permutation[static_cast<size_t>(k)];
        zero[static_cast<size_t>(by_input ? input : n)] = false;
      }
    }
  }
  return zero;
}

Result<std::vector<int32_t>> real_neurons(const Checkpoint& checkpoint, const ModelConfig& config, int32_t layer) {
  auto gate = zero_lines(checkpoint, config, layer, Projection::gate);
  auto up = zero_lines(checkpoint, config, layer, Projection::up);
  auto down = zero_lines(checkpoint, config, layer, Projection::down);
  for (const auto* lines : {&gate, &up, &down}) {
    if (!*lines) return tl::unexpected(lines->error());
  }
  std::vector<int32_t> real;
  for (int32_t i = 0; i < config.intermediate_size; ++i) {
    const auto at = static_cast<size_t>(i);
    if (!((*gate)[at] && (*up)[at] && (*down)[at])) real.push_back(i);
  }
  return real;
}

}  // namespace

Result<void> check_base_copies(const std::vector<BaseCopy>& copies, const ModelConfig& config) {
  if (copies.empty()) return {};
  if (config.dir.empty()) {
    return fail("{}: a copy of the base's weights that no checkpoint is there to compare with", copies[0].tensor.where);
  }
  auto checkpoint = Checkpoint::open(config.dir);
  if (!checkpoint) return tl::unexpected(checkpoint.error());
  for (const BaseCopy& copy : copies) {
    const bool tied = config.tie_word_embeddings && copy.module == kLmHeadName;
    const auto own = checkpoint->find((tied ? embedding_name(config) : copy.module) + ".weight");
    const auto same = own ? is_same(*own, copy.tensor) : Result<bool>(false);
    if (!same) return tl::unexpected(same.error());
    if (!*same) {
      return fail("{}: weights of the base itself that differ from {}: changed base weights are not served",
                  copy.tensor.where, config.dir.string());
    }
  }
  return {};
}

Result<std::vector<int32_t>> find_unpadded_neurons(const ModelConfig& config, int32_t width) {
  auto base = open_servable(config.dir, config);
  if (!base) return tl::unexpected(base.error());
  // The recipe pads every layer alike; the first and the last are asked.
  auto first = real_neurons(base->checkpoint, base->config, 0);
  auto last = real_neurons(base->checkpoint, base->config, config.num_layers - 1);
  if (!first) return first;
  if (!last) return last;
  if (first->size() != static_cast<size_t>(width)) {
    return fail("the checkpoint has {} neurons that are not zero, so its padding cannot be told", first->size());
  }
  if (*first != *last) return fail("the checkpoint's layers are padded at different places");
  return first;
}

MlpSide mlp_side_of(Projection p) {
  switch (p) {
    case Projection::gate:
    case Projection::up:
      return MlpSide::outputs;
    case Projection::down:
      return MlpSide::inputs;
    default:
      return MlpSide::none;
  }
}

void spread_neurons(const std::vector<int32_t>& neurons, MlpSide side, int32_t all, LoraPair& pair) {
  const auto width = neurons.size(), rank = static_cast<size_t>(pair.rank), total = static_cast<size_t>(all);
  if (side == MlpSide::outputs) {
    pair.b = pair.b.spread_rows(rank, neurons, total);
    if (pair.magnitude.empty()) return;
    std::vector<float> magnitude(total, 0);  // rows of zeros stay zero
    for (size_t i = 0; i < width; ++i) magnitude[static_cast<size_t>(neurons[i])] = pair.magnitude[i];
    pair.magnitude = std::move(magnitude);
    return;
  }
  pair.a = pair.a.spread_columns(neurons, total);
}

}  // namespace lorikeet::model
