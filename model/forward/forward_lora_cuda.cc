// Adapters beside the base products: who applies them in a step, and how.
#include <glog/logging.h>

#include <algorithm>
#include <array>
#include <vector>

#include "model/forward/forward_cuda.h"

namespace lorikeet::model {
namespace {

// Steps with adapters have room for ranks up to one of these, or up to the highest that is served: what is reserved for
// higher ranks costs time, and above the last one the products leave LoRA to kernels of its own.
constexpr std::array<int32_t, 3> kFusedRanks = {16, 64, kernels::kMostFusedRank};

// How many projections share the product that begins with `first`.
int32_t projections_from(Projection first) {
  return first == Projection::q ? 3 : first == Projection::gate ? 2 : 1;
}

}  // namespace

kernels::LoraRowPlan CudaForward::lora_plan(int32_t rows, int32_t max_rank) const {
  return {rows, options_.num_slots, max_rank};
}

std::vector<int32_t> CudaForward::lora_rank_classes(int32_t rows) const {
  std::vector<int32_t> classes;
  if (rows <= kernels::kMostFusedTokens) {
    for (const int32_t rank : kFusedRanks) {
      if (rank < options_.max_lora_rank) classes.push_back(rank);
    }
  }
  classes.push_back(options_.max_lora_rank);
  return classes;
}

int32_t CudaForward::lora_rank_class(int32_t rows, int32_t highest) const {
  const std::vector<int32_t> classes = lora_rank_classes(rows);
  const auto found = std::lower_bound(classes.begin(), classes.end(), highest);
  CHECK(found != classes.end()) << "rank " << highest;
  return *found;
}

kernels::LoraLinear CudaForward::lora_linear(int32_t layer, Projection first) const {
  const auto index = static_cast<int32_t>(first);
  kernels::LoraLinear linear;
  linear.first_entry = slots_->entry(layer, index);
  linear.projections = projections_from(first);
  linear.inputs = plan_.inputs(first, rank_).size();
  for (int32_t i = 0; i < linear.projections; ++i) {
    linear.outputs[static_cast<size_t>(i)] = plan_.outputs(static_cast<Projection>(index + i), rank_).size();
  }
  return linear;
}

kernels::LoraArgs CudaForward::lora_args(int32_t layer, Projection first, const StepSize& size,
                                         const StepArrays& arrays) const {
  kernels::LoraArgs args;
  if (size.lora_bytes == 0) return args;
  args.table = slots_->table();
  args.rows = lora_plan(size.tokens, size.lora_rank).on_device(arrays.lora_rows, size.tokens);
  args.linear = lora_linear(layer, first);
  args.dtype = args.y_dtype = options_.dtype;
  return args;
}

bool CudaForward::can_fuse_lora(int32_t layer, Projection first, const StepSize& size) const {
  if (size.lora_bytes == 0 || size.prefill_rows > 0 || shares_device_) return false;
  const DeviceLinear& linear = linear_of(layer, first);
  if (first == Projection::gate && !linear.fuses_silu()) return false;
  return linear_.takes_lora(linear, size.tokens, lora_linear(layer, first), size.lora_rank);
}

bool CudaForward::fuses_lora(int32_t layer, Projection first, const StepSize& size) const {
  return step_fuses_ && can_fuse_lora(layer, first, size);
}

bool CudaForward::fuses_lora(const StepSize& size) const {
  int32_t products = 0;
  for (int32_t i = 0; i < plan_.config().num_layers && products < 2; ++i) {
    for (const Projection first : {Projection::q, Projection::o, Projection::gate, Projection::down}) {
      products += can_fuse_lora(i, first, size) ? 1 : 0;
    }
  }
  return products >= 2;  // see kernels::Int4LoraScratch
}

kernels::Int4LoraSize CudaForward::fused_size(int32_t layer, Projection first, const StepSize& size) const {
  if (!fuses_lora(layer, first, size)) return {};
  return {projections_from(first), size.lora_rank};
}

bool CudaForward::takes_x_for_lora(int32_t layer, Projection first, const StepSize& size) {
  if (size.lora_bytes == 0) return false;
  const kernels::Int4LoraSize fused = fused_size(layer, first, size);
  return fused.projections == 0 || linear_.takes_x_for_lora(linear_of(layer, first), size.tokens, fused);
}

kernels::Int4Lora CudaForward::fused_lora(const kernels::LoraArgs& lora, const StepSize& size) {
  const kernels::Int4LoraScratch& scratch = fused_scratch_.at(size.lora_rank);
  return {lora.table,  lora.rows,     lora.linear, scratch.turn(fused_turn_++, lora.rows.rows),
          lora.x_done, lora.x_blocks, lora.done};
}

uint32_t* CudaForward::done_counter(int32_t layer, Projection first, const StepSize& size) {
  // Prompts are bound by their products, and their x comes from several kernels.
  if (size.prefill_rows > 0 || !takes_x_for_lora(layer, first, size)) return nullptr;
  return done_counters_.as<uint32_t>() + layer * kNumProjections + static_cast<int32_t>(first);
}

int32_t CudaForward::project(int32_t layer, Projection first, const DeviceRows& x, const DeviceRows& y,
                             kernels::LoraArgs lora, const StepSize& size, const StepContext& context,
                             ProductExtras extras) {
  const DeviceLinear& linear = linear_of(layer, first);
  if (fuses_lora(layer, first, size)) {
    const kernels::Int4Lora fused = fused_lora(lora, size);
    extras.lora = &fused;
    linear_.run(linear, x, y, size.tokens, context.stream, extras);
    return 0;
  }
  const bool with_lora = lora.linear.projections > 0;
  lora.x = x.data;
  lora.x_stride = x.stride;
  lora.y = y.data;
  lora.y_stride = y.stride;
  if (with_lora && lora.x_done == nullptr) lora_->shrink(lora, context.stream);
  linear_.run(linear, x, y, size.tokens, context.stream, extras);
  if (!with_lora) return 0;
  if (lora.x_done != nullptr) lora_->shrink(lora, context.stream);
  return lora_->expand(lora, context.stream);
}

}  // namespace lorikeet::model
