#include "model/adapter/adapter_file.h"

#include <fmt/format.h>
#include <glog/logging.h>

#include <algorithm>
#include <map>
#include <utility>

#include "kernels/base/printable.h"
#include "model/checkpoint/tensor_names.h"

namespace lorikeet::model {
namespace {

// Of a tensor that read_tensors has looked at; it stays in the file's image.
StoredFloats floats_of(const TensorView& tensor) {
  return {*tensor.entry->dtype, tensor.bytes, tensor.owner};
}

std::optional<LoraPair>& pair_at(Adapter& adapter, size_t place) {
  const size_t layers = adapter.layers.size() * kNumProjections;
  if (place >= layers) return place == layers ? adapter.lm_head : adapter.embedding;
  return adapter.layers[place / kNumProjections][place % kNumProjections];
}

// "3 of 7 modules lack ..."; of a single one in words of its own.
std::string modules_that(size_t some, size_t all, const char* many_do, const char* one_does) {
  return all == 1 ? fmt::format("its only module {}", one_does) : fmt::format("{} of {} {}", some, all, many_do);
}

}  // namespace

AdapterFile::AdapterFile(AdapterScan scan, const ModelConfig& config, const AdapterOptions& options)
    : scan_(std::move(scan)), config_(&config), options_(options) {
  outline_.layers.resize(static_cast<size_t>(config.num_layers));
}

Result<AdapterFile> AdapterFile::open(const std::filesystem::path& dir, const ModelConfig& config,
                                      const AdapterOptions& options) {
  auto scan = scan_adapter(dir, options.within);
  if (!scan) return tl::unexpected(scan.error());
  AdapterFile file(*std::move(scan), config, options);
  if (auto ok = file.check_names(); !ok) return tl::unexpected(ok.error());
  for (const auto& [name, module] : file.scan_.modules) {
    const auto pair = file.plan_pair(name, module);
    if (!pair) return tl::unexpected(pair.error());
    file.store(*find_adapter_place(config, name, module.is_embedding), *pair, module.is_embedding, file.outline_);
  }
  for (const BaseCopy& copy : file.scan_.base_copies) {
    if (auto ok = file.expect(copy.tensor, {config.vocab_size, config.hidden_size}); !ok) {
      return tl::unexpected(ok.error());
    }
  }
  file.outline_.count_bytes();
  return file;
}

bool AdapterFile::can_stream() const {
  return scan_.base_copies.empty() && !scan_.config.uses_dora() &&
         std::none_of(scan_.modules.begin(), scan_.modules.end(), [this](const auto& item) {
           const AdapterPlace place = *find_adapter_place(*config_, item.first, item.second.is_embedding);
           return padded_from(item.second, place) > 0 || pooled_inputs(item.second, place) > 0;
         });
}

Result<std::string> AdapterFile::stream(const Take& take) {
  CHECK(can_stream());
  struct Use {
    LoraMatrix matrix;
    uint64_t first = 0;  // of its elements, among the tensor's
  };
  std::map<const TensorEntry*, std::vector<Use>> uses;
  for (const auto& [name, module] : scan_.modules) {
    const auto pair = plan_pair(name, module);
    if (!pair) return tl::unexpected(pair.error());
    const AdapterPlace place = *find_adapter_place(*config_, name, module.is_embedding);
    for (const Target& target : targets_of(place, *pair, module.is_embedding)) {
      uses[module.a->entry].push_back({{target.place, false}, 0});
      uses[module.b->entry].push_back(
          {{target.place, true}, static_cast<uint64_t>(target.first_output) * static_cast<uint64_t>(pair->rank)});
    }
  }
  const auto give = [&](const TensorEntry& entry, std::span<const uint8_t> bytes) -> Result<void> {
    for (Use use : uses.at(&entry)) {
      use.matrix.dtype = *entry.dtype;
      use.matrix.values = bytes.data() + use.first * kernels::size_of(*entry.dtype);
      if (auto ok = take(use.matrix); !ok) return ok;
    }
    return {};
  };
  if (auto ok = stream_tensors(scan_, options_.threads, give); !ok) return tl::unexpected(ok.error());
  return scan_.digest;
}

// Only now is memory given to the tensors: their shapes are the base's, so their size is bounded.
Result<Adapter> AdapterFile::read() {
  if (auto ok = read_tensors(scan_, options_.threads); !ok) return tl::unexpected(ok.error());
  if (auto ok = check_base_copies(scan_.base_copies, *config_); !ok) return tl::unexpected(ok.error());
  Adapter adapter;
  adapter.digest = scan_.digest;
  adapter.layers.resize(static_cast<size_t>(config_->num_layers));
  for (const auto& [name, module] : scan_.modules) {
    if (auto ok = read_module(name, module, adapter); !ok) return tl::unexpected(ok.error());
  }
  adapter.count_bytes();
  return adapter;
}

// Everything that can be said from names alone.
Result<void> AdapterFile::check_names() const {
  const std::string where = scan_.dir.string();
  if (!scan_.strange.empty()) {
    const std::string& beside = scan_.config.trained_beside();
    return fail("{}: {} tensors are no part of a LoRA adapter: {}{}", where, scan_.strange.size(),
                list_names(scan_.strange), beside.empty() ? "" : " (" + beside + ")");
  }
  if (scan_.modules.empty()) return fail("{}: the adapter holds no LoRA tensors", where);
  std::vector<std::string> unmatched, incomplete, untargeted, without_magnitude, with_magnitude;
  for (const auto& [name, module] : scan_.modules) {
    if (!find_adapter_place(*config_, name, module.is_embedding)) unmatched.push_back(name);
    if (!module.a || !module.b)
      incomplete.push_back(name + (module.a ? " (no B)" : module.b ? " (no A)" : " (neither)"));
    auto targeted = is_targeted(scan_, name);
    if (!targeted) return fail("{}: {}", where, targeted.error().message);
    if (!*targeted) untargeted.push_back(name);
    (module.magnitude ? with_magnitude : without_magnitude).push_back(name);
  }
  const size_t all = scan_.modules.size();
  if (!unmatched.empty()) {
    return fail("{}: {} in {} with {} layers: {}", where,
                modules_that(unmatched.size(), all, "adapted modules match nothing", "matches nothing"),
                name_of(config_->architecture), config_->num_layers, list_names(unmatched));
  }
  if (!incomplete.empty()) {
    return fail("{}: {} lora_A or lora_B: {}", where,
                modules_that(incomplete.size(), all, "modules lack", "is found to lack"), list_names(incomplete));
  }
  if (!untargeted.empty()) {
    return fail(
        "{}: {}: {}", where,
        modules_that(untargeted.size(), all, "modules have tensors, yet adapter_config.json does not target them",
                     "has tensors, yet adapter_config.json does not target it"),
        list_names(untargeted));
  }
  if (!scan_.config.uses_dora() && !with_magnitude.empty()) {
    return fail("{}: {} a DoRA magnitude, yet use_dora is off: {}", where,
                modules_that(with_magnitude.size(), all, "modules have", "has"), list_names(with_magnitude));
  }
  if (scan_.config.uses_dora() && !without_magnitude.empty()) {
    return fail("{}: use_dora is on, yet {} no magnitude: {}", where,
                modules_that(without_magnitude.size(), all, "modules have", "has"), list_names(without_magnitude));
  }
  for (const auto& [name, module] : scan_.modules) {
    if (module.magnitude && find_adapter_place(*config_, name, module.is_embedding)->projections.empty()) {
      return fail("{}: DoRA on {} is not served", where, printable(name));
    }
  }
  return {};
}

// A pair of the right sizes without its values, after its tensors' shapes have been checked.
Result<LoraPair> AdapterFile::plan_pair(const std::string& name, const AdapterModule& module) const {
  const AdapterPlace place = *find_adapter_place(*config_, name, module.is_embedding);
  auto rank = scan_.config.rank_of(name, module.stored_name);
  auto scale = scan_.config.scale_of(name, module.stored_name);
  if (!rank) return fail("{}: {}", scan_.dir.string(), rank.error().message);
  if (!scale) return fail("{}: {}", scan_.dir.string(), scale.error().message);
  if (*rank > options_.max_rank) {
    return fail("{}: {} has rank {}, at most {} is served", scan_.dir.string(), printable(name), *rank,
                options_.max_rank);
  }
  LoraPair pair;
  pair.rank = *rank;
  pair.scale = *scale;
  pair.inputs = place.inputs;
  pair.outputs = place.outputs;
  const int32_t width = padded_from(module, place);
  const MlpSide side = width > 0 ? mlp_side_of(place.projections[0]) : MlpSide::none;
  const int32_t b_rows = side == MlpSide::outputs ? width : pair.outputs;
  const int32_t pooled = pooled_inputs(module, place);
  const int32_t a_columns = pooled > 0 ? pooled : side == MlpSide::inputs ? width : pair.inputs;
  if (auto ok = expect(*module.a, {pair.rank, a_columns}); !ok) return tl::unexpected(ok.error());
  // PEFT takes each group's mean, times the number of groups.
  if (pooled > 0) pair.scale *= static_cast<float>(pooled) / static_cast<float>(scan_.config.qalora_group());
  if (auto ok = expect(*module.b, {b_rows, pair.rank}); !ok) return tl::unexpected(ok.error());
  if (module.magnitude) {
    if (auto ok = expect(*module.magnitude, {b_rows}); !ok) return tl::unexpected(ok.error());
  }
  return pair;
}

Result<void> AdapterFile::read_module(const std::string& name, const AdapterModule& module, Adapter& adapter) {
  const AdapterPlace place = *find_adapter_place(*config_, name, module.is_embedding);
  auto pair = plan_pair(name, module);
  if (!pair) return tl::unexpected(pair.error());
  pair->a = floats_of(*module.a);
  if (const int32_t pooled = pooled_inputs(module, place); pooled > 0) {
    pair->a = pair->a.repeat_columns(static_cast<size_t>(pooled), static_cast<size_t>(scan_.config.qalora_group()));
  }
  pair->b = floats_of(*module.b);
  if (module.magnitude) pair->magnitude = floats_of(*module.magnitude).floats();
  if (const int32_t width = padded_from(module, place); width > 0) {
    if (auto ok = spread(mlp_side_of(place.projections[0]), width, *pair); !ok) return ok;
  }
  store(place, *pair, module.is_embedding, adapter);
  return {};
}

// The width of the MLP that the adapter was made for, where it is narrower than the base's; 0: it is the same. Only a
// quantised checkpoint is padded, and by little; anything else is an adapter of another model.
int32_t AdapterFile::padded_from(const AdapterModule& module, const AdapterPlace& place) const {
  const MlpSide side = place.projections.empty() ? MlpSide::none : mlp_side_of(place.projections[0]);
  if (side == MlpSide::none || config_->quant.method == QuantMethod::none || config_->dir.empty()) return 0;
  const auto& shape = side == MlpSide::inputs ? module.a->entry->shape : module.b->entry->shape;
  if (shape.size() != 2) return 0;
  const int64_t width = shape[side == MlpSide::inputs ? 1 : 0];
  return width < config_->intermediate_size && width > config_->intermediate_size / 2 ? static_cast<int32_t>(width) : 0;
}

// How many groups of inputs A is over, where it is QA-LoRA's; 0: it is over the inputs. PEFT makes such an A for GPTQ
// modules alone, so that its shape says it.
int32_t AdapterFile::pooled_inputs(const AdapterModule& module, const AdapterPlace& place) const {
  const int32_t group = scan_.config.qalora_group();
  const auto& shape = module.a->entry->shape;
  if (group == 0 || module.is_embedding || place.inputs % group != 0 || shape.size() != 2) return 0;
  return shape[1] == place.inputs / group ? place.inputs / group : 0;
}

Result<void> AdapterFile::spread(MlpSide side, int32_t width, LoraPair& pair) {
  if (!neurons_) {
    auto found = find_unpadded_neurons(*config_, width);
    if (!found) {
      return fail("{}: made for an MLP of {} neurons, the base has {}: {}", scan_.dir.string(), width,
                  config_->intermediate_size, found.error().message);
    }
    neurons_ = std::move(*found);
  }
  if (neurons_->size() != static_cast<size_t>(width)) {
    return fail("{}: MLPs of {} and of {} neurons in one adapter", scan_.dir.string(), neurons_->size(), width);
  }
  spread_neurons(*neurons_, side, config_->intermediate_size, pair);
  return {};
}

Result<void> AdapterFile::expect(const TensorView& tensor, std::initializer_list<int64_t> shape) const {
  const auto& own = tensor.entry->shape;
  if (std::equal(shape.begin(), shape.end(), own.begin(), own.end())) return {};
  return fail("{} has shape {}, the base and adapter_config.json call for {}", tensor.where, shape_text(own),
              shape_text(std::vector<int64_t>(shape)));
}

// Each of q, k and v takes its third of a fused pair's B and the whole A.
std::vector<AdapterFile::Target> AdapterFile::targets_of(const AdapterPlace& place, const LoraPair& pair,
                                                         bool is_embedding) const {
  const size_t layers = outline_.layers.size() * kNumProjections;
  if (place.projections.empty()) return {{layers + (is_embedding ? 1 : 0), 0, pair.outputs}};
  std::vector<Target> targets;
  for (const Projection p : place.projections) {
    Target& target = targets.emplace_back();
    target.place = static_cast<size_t>(place.layer) * kNumProjections + static_cast<size_t>(p);
    target.outputs = pair.outputs;
    if (place.projections.size() == 1) continue;
    target.first_output = place_of(*config_, place.layer, p).first_output;
    target.outputs = output_size(*config_, p);
  }
  return targets;
}

void AdapterFile::store(const AdapterPlace& place, const LoraPair& pair, bool is_embedding, Adapter& adapter) const {
  for (const Target& target : targets_of(place, pair, is_embedding)) {
    LoraPair& part = pair_at(adapter, target.place).emplace(pair);
    if (target.outputs == pair.outputs) continue;
    const auto first = static_cast<size_t>(target.first_output), end = first + static_cast<size_t>(target.outputs);
    part.outputs = target.outputs;
    if (!pair.b.empty()) part.b = pair.b.rows(static_cast<size_t>(pair.rank), first, end);
    if (!pair.magnitude.empty()) {
      part.magnitude.assign(pair.magnitude.begin() + static_cast<ptrdiff_t>(first),
                            pair.magnitude.begin() + static_cast<ptrdiff_t>(end));
    }
  }
}

Result<Adapter> read_adapter(const std::filesystem::path& dir, const ModelConfig& config,
                             const AdapterOptions& options) {
  auto file = AdapterFile::open(dir, config, options);
  if (!file) return tl::unexpected(file.error());
  return file->read();
}

}  // namespace lorikeet::model
