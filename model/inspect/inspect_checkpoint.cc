#include <algorithm>
#include <optional>
#include <string>
#include <utility>

#include "model/checkpoint/checkpoint.h"
#include "model/checkpoint/quantised_module.h"
#include "model/checkpoint/servable_checkpoint.h"
#include "model/checkpoint/shard_plan.h"
#include "model/checkpoint/tensor_names.h"
#include "model/inspect/inspect.h"
#include "model/tokenizer/tokenizer.h"

namespace lorikeet::model {
namespace {

uint64_t dtype_bytes(const TensorView& tensor) {
  return tensor.entry->dtype ? kernels::size_of(*tensor.entry->dtype) : 0;
}

// Bytes of the part outputs x inputs of one projection: packed values, scales, zeros and bias, in the file's types.
uint64_t linear_bytes(const Checkpoint& checkpoint, const ShardPlan& plan, int rank, int32_t layer, Projection p,
                      bool act_order) {
  const ModelConfig& config = plan.config();
  const ModulePlace place = place_of(config, layer, p);
  const auto outputs = static_cast<uint64_t>(plan.outputs(p, rank).size());
  const Range inputs = plan.inputs(p, rank);
  const auto columns = static_cast<uint64_t>(inputs.size());
  uint64_t bytes = 0;
  if (is_quantised(checkpoint, config.quant, place.module)) {
    auto module = find_quantised_module(checkpoint, config.quant, place.module, place.outputs, input_size(config, p));
    if (!module) return 0;
    const bool sorted = module->group_index.has_value() && act_order;
    const auto group = static_cast<int64_t>(module->group_size);
    const int64_t groups = sorted ? module->groups : (inputs.end + group - 1) / group - inputs.begin / group;
    bytes += outputs * columns * static_cast<uint64_t>(module->bits) / 8 +
             static_cast<uint64_t>(groups) * outputs * dtype_bytes(module->scales);
    if (module->zeros) bytes += static_cast<uint64_t>(groups) * outputs * static_cast<uint64_t>(module->bits) / 8;
  } else if (const auto dense = checkpoint.find(place.module + ".weight")) {
    bytes += outputs * columns * dtype_bytes(*dense);
  }
  const auto bias = checkpoint.find(place.module + ".bias");
  if (bias && has_bias(config, p)) bytes += outputs * dtype_bytes(*bias);
  return bytes;
}

uint64_t tensor_bytes(const Checkpoint& checkpoint, const std::string& name) {
  const auto tensor = checkpoint.find(name);
  return tensor ? tensor->entry->end - tensor->entry->begin : 0;
}

uint64_t rank_bytes(const Checkpoint& checkpoint, const ShardPlan& plan, int rank, bool act_order) {
  const ModelConfig& config = plan.config();
  uint64_t bytes = tensor_bytes(checkpoint, embedding_name(config) + ".weight") +
                   tensor_bytes(checkpoint, final_norm_name(config) + ".weight");
  if (!config.tie_word_embeddings) {  // a quantised one becomes floats
    const auto head = checkpoint.find(std::string(kLmHeadName) + ".weight");
    bytes += static_cast<uint64_t>(plan.shard(rank).vocab.size()) * static_cast<uint64_t>(config.hidden_size) *
             (head ? dtype_bytes(*head) : sizeof(float));
  }
  for (int32_t layer = 0; layer < config.num_layers; ++layer) {
    for (const NormKind kind : norms_of(config)) {
      bytes += tensor_bytes(checkpoint, norm_name(config, layer, kind) + ".weight");
    }
    for (const Projection p : kProjections) bytes += linear_bytes(checkpoint, plan, rank, layer, p, act_order);
  }
  return bytes;
}

SizeReport report_size(const Checkpoint& checkpoint, const ModelConfig& config, int size, bool act_order,
                       const InspectOptions& options) {
  SizeReport report;
  report.size = size;
  auto plan = ShardPlan::make(config, size);
  if (!plan) {
    report.refusal = plan.error().message;
    return report;
  }
  for (int rank = 0; rank < size; ++rank) {
    report.weight_bytes.push_back(rank_bytes(checkpoint, *plan, rank, act_order));
    report.neurons.push_back(plan->shard(rank).intermediate.size());
  }
  report.kv_bytes_per_token = plan->kv_bytes_per_position(0, static_cast<uint64_t>(options.kv_element_bytes));
  const uint64_t weights = *std::max_element(report.weight_bytes.begin(), report.weight_bytes.end());
  for (const uint64_t memory : options.memories) {
    const uint64_t left = memory > weights ? memory - weights : 0;
    report.fits.push_back({memory, static_cast<int64_t>(left / report.kv_bytes_per_token)});
  }
  return report;
}

// Act-order shows in the index of groups, whatever the configuration says.
bool has_act_order(const QuantisedModule& module) {
  if (!module.group_index) return false;
  for (int32_t k = 0; k < module.k; ++k) {
    if (group_of(module, k) != k / module.group_size) return true;
  }
  return false;
}

void count_modules(const Checkpoint& checkpoint, const ModelConfig& config, CheckpointReport& report) {
  for (int32_t layer = 0; layer < config.num_layers; ++layer) {
    for (const Projection p : kProjections) {
      const ModulePlace place = place_of(config, layer, p);
      if (!is_quantised(checkpoint, config.quant, place.module)) {
        ++report.dense_modules;
        continue;
      }
      ++report.quantised_modules;
      const auto module =
          find_quantised_module(checkpoint, config.quant, place.module, place.outputs, input_size(config, p));
      if (!module) continue;
      report.act_order = report.act_order || has_act_order(*module);
      if (module->bits != 8) continue;
      ++report.eight_bit_modules;
      report.eight_bit_weights += static_cast<uint64_t>(output_size(config, p)) * static_cast<uint64_t>(module->k);
    }
  }
}

Result<void> report_checkpoint(const InspectOptions& options, CheckpointReport& report) {
  auto config = read_model_config(report.dir);
  if (!config) return tl::unexpected(config.error());
  report.config = *config;
  if (auto defaults = read_generation_defaults(report.dir); !defaults) return tl::unexpected(defaults.error());
  if (Tokenizer::is_in(report.dir)) {  // prompts of token ids need none
    if (auto tokenizer = Tokenizer::load(report.dir); !tokenizer) return tl::unexpected(tokenizer.error());
  }
  auto checkpoint = Checkpoint::open(report.dir);
  if (!checkpoint) return tl::unexpected(checkpoint.error());
  report.tensors = static_cast<int64_t>(checkpoint->names().size());
  report.file_bytes = checkpoint->tensor_bytes();
  auto servable = open_servable(report.dir, *config);
  if (!servable) return tl::unexpected(servable.error());
  report.config = servable->config;
  if (auto ok = check_values(*servable); !ok) return ok;
  count_modules(servable->checkpoint, servable->config, report);
  for (const int size : kInspectedSizes) {
    report.sizes.push_back(report_size(servable->checkpoint, servable->config, size, report.act_order, options));
  }
  if (report.sizes[0].refusal) return fail("{}", *report.sizes[0].refusal);  // not even on one rank
  return {};
}

}  // namespace

Result<CheckpointReport> count_linear_layers(const std::filesystem::path& dir) {
  auto config = read_model_config(dir);
  if (!config) return tl::unexpected(config.error());
  auto checkpoint = Checkpoint::open(dir);
  if (!checkpoint) return tl::unexpected(checkpoint.error());
  CheckpointReport report;
  report.dir = dir;
  count_modules(*checkpoint, *config, report);
  return report;
}

CheckpointReport inspect_checkpoint(const std::filesystem::path& dir, const InspectOptions& options) {
  CheckpointReport report;
  report.dir = dir;
  if (auto ok = report_checkpoint(options, report); !ok) report.refusal = ok.error().message;
  return report;
}

DirectoryKind kind_of_directory(const std::filesystem::path& dir) {
  std::error_code error;
  if (std::filesystem::exists(dir / "adapter_config.json", error)) return DirectoryKind::adapter;
  if (std::filesystem::exists(dir / "config.json", error)) return DirectoryKind::checkpoint;
  return DirectoryKind::neither;
}

}  // namespace lorikeet::model
