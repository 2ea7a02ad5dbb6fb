// Prompts over several ranks. A product in front of a sum is made in two parts of the tokens: while the ranks sum the first
// part and norm it on a stream of their own, the second is computed, and while they sum the second, the products behind
// begin with the first.
//
// The parts are cut where the products' blocks still fill as many rounds over the multiprocessors as for all tokens at
// once, since a round that is not full would cost more than the sum: what the second part's blocks leave free then has
// room for the sum. Bits do not change: sums and norms are of single rows, and products are shaped by all tokens.
#include <glog/logging.h>

#include <limits>
#include <utility>
#include <vector>

#include "kernels/base/rounding.h"
#include "kernels/layer/rms_norm_cuda.h"
#include "model/forward/forward_cuda.h"

namespace lorikeet::model {
namespace {

using kernels::DeviceBuffer;
using kernels::divide_up;

// Of an area of a product, as of most shapes for many tokens (kernels/int4/prefill/int4_prefill.h).
constexpr int32_t kBlockTokens = 128;
constexpr int32_t kBlockOutputs = 256;
constexpr int32_t kFewestTokens = kernels::kInt4FewestRowsInParts;  // of a step; fewer fill one round or two

DeviceRows rows_from(const DeviceRows& rows, int32_t first, kernels::Dtype dtype) {
  const size_t elements = static_cast<size_t>(first) * static_cast<size_t>(rows.stride);
  return {static_cast<unsigned char*>(rows.data) + elements * kernels::size_of(dtype), rows.stride};
}

// Rounds of a product's blocks over the multiprocessors, each as long as its inputs.
int64_t rounds_of(int32_t outputs, int32_t inputs, int32_t token_blocks, int32_t multiprocessors) {
  return int64_t{divide_up(divide_up(outputs, kBlockOutputs) * token_blocks, multiprocessors)} * inputs;
}

}  // namespace

Result<void> CudaForward::prepare_parts() {
  if (plan_.size() == 1) return {};
  const DeviceLayer& front = weights_->layers.front();
  own_parts_.takes = shares_device_ ? 0 : 1;
  own_parts_.multiprocessors = kernels::device_properties().multiprocessors;
  const std::array<const DeviceLinear*, 3> linears = {&front.o, &front.gate_up, &front.down};
  for (size_t i = 0; i < linears.size(); ++i) {
    own_parts_.outputs[i] = linears[i]->all_outputs();
    own_parts_.inputs[i] = linears[i]->inputs;
  }
  for (const DeviceLayer& w : weights_->layers) {
    for (const DeviceLinear* linear : {&w.o, &w.gate_up, &w.down}) {
      if (!linear_.takes_parts(*linear)) own_parts_.takes = 0;
    }
    if (!w.gate_up.fuses_silu()) own_parts_.takes = 0;
  }
  auto gathered = DeviceBuffer::allocate(sizeof(PartsOffer) * static_cast<uint64_t>(plan_.size()), "prompts in parts");
  if (!gathered) return tl::unexpected(gathered.error());
  gathered_parts_ = *std::move(gathered);
  auto stream = kernels::Stream::make(/*urgent=*/true);
  if (!stream) return tl::unexpected(stream.error());
  sums_stream_ = *std::move(stream);
  for (PartEvents& events : part_events_) {
    for (kernels::Event* event : {&events.made, &events.summed}) {
      auto made = kernels::Event::make();
      if (!made) return tl::unexpected(made.error());
      *event = *std::move(made);
    }
  }
  return {};
}

void CudaForward::agree_on_parts(const StepContext& context) {
  agreed_parts_ = {};
  if (context.group == nullptr) return;
  auto* own = gathered_parts_.as<PartsOffer>() + rank_;
  kernels::copy_to_device(own, &own_parts_, sizeof(PartsOffer), context.stream);
  context.group->all_gather(own, gathered_parts_.data(), sizeof(PartsOffer), context.stream);
  part_events_[0].made.record(context.stream);
  context.group->wait(part_events_[0].made);
  std::vector<PartsOffer> offers(static_cast<size_t>(plan_.size()));
  kernels::copy_to_host(offers.data(), gathered_parts_.data(), gathered_parts_.bytes(), context.stream);
  context.stream.synchronize();
  agreed_parts_ = offers.front();
  for (const PartsOffer& offer : offers) agreed_parts_.takes &= offer.takes;
  bool sized = agreed_parts_.multiprocessors > 0;
  for (size_t i = 0; i < agreed_parts_.outputs.size(); ++i) {
    sized = sized && agreed_parts_.outputs[i] > 0 && agreed_parts_.inputs[i] > 0;
  }
  if (!sized) agreed_parts_.takes = 0;
}

void CudaForward::choose_parts(const StepSize& size, const StepContext& context) {
  parts_ = {};
  if (agreed_parts_.takes == 0 || size.lora_bytes > 0 || size.tokens < kFewestTokens) return;
  const int32_t blocks = divide_up(size.tokens, kBlockTokens);
  int64_t least = std::numeric_limits<int64_t>::max();
  int32_t chosen = 0;
  for (int32_t second = 1; second <= blocks / 2; ++second) {
    int64_t rounds = 0;
    for (size_t i = 0; i < agreed_parts_.outputs.size(); ++i) {
      for (const int32_t part : {blocks - second, second}) {
        rounds += rounds_of(agreed_parts_.outputs[i], agreed_parts_.inputs[i], part, agreed_parts_.multiprocessors);
      }
    }
    if (rounds > least) continue;
    least = rounds;
    chosen = second;
  }
  const int32_t first = (blocks - chosen) * kBlockTokens;
  const std::array<int32_t, kParts> parts = {first, size.tokens - first};
  // Fewer tokens would be computed by other kernels than all are.
  if (parts[1] <= kernels::kInt4DecodeRows) return;
  for (const int32_t part : parts) {
    if (!sums_in_norm(part, context)) return;
  }
  parts_ = parts;
  ++steps_in_parts_;
}

void CudaForward::project_parts(int32_t layer, Projection first, const DeviceRows& x, const float* weight,
                                const StepSize& size, const StepContext& context) {
  const int32_t hidden = plan_.config().hidden_size;
  ProductExtras extras;
  extras.of_rows = size.tokens;
  int32_t begin = 0;
  for (size_t i = 0; i < kParts; ++i) {
    const DeviceRows delta = rows_from({delta_.data(), hidden}, begin, options_.dtype);
    linear_.run(linear_of(layer, first), rows_from(x, begin, options_.dtype), delta, parts_[i], context.stream, extras);
    part_events_[i].made.record(context.stream);
    sums_stream_.wait(part_events_[i].made);
    kernels::AddRmsNormArgs args;
    args.residual = residual_.as<float>() + int64_t{begin} * hidden;
    args.delta = delta.data;
    args.weight = weight;
    args.epsilon = plan_.config().rms_norm_eps;
    args.out = rows_from({normed_.data(), hidden}, begin, options_.dtype).data;
    args.dtype = options_.dtype;
    args.tokens = parts_[i];
    args.width = hidden;
    context.group->all_reduce_norm(args, sums_stream_);
    part_events_[i].summed.record(sums_stream_);
    begin += parts_[i];
  }
}

void CudaForward::silu_parts(const DeviceLinear& gate_up, const DeviceRows& y, const StepSize& size,
                             const StepContext& context) {
  const DeviceRows x = {normed_.data(), plan_.config().hidden_size};
  ProductExtras extras;
  extras.of_rows = size.tokens;
  int32_t begin = 0;
  for (size_t i = 0; i < kParts; ++i) {
    context.stream.wait(part_events_[i].summed);
    linear_.run_silu(gate_up, rows_from(x, begin, options_.dtype), rows_from(y, begin, options_.dtype), parts_[i],
                     context.stream, extras);
    begin += parts_[i];
  }
}

void CudaForward::wait_for_parts(const StepContext& context) {
  for (const PartEvents& events : part_events_) context.stream.wait(events.summed);
}

}  // namespace lorikeet::model
