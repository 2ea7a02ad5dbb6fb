#include "model/forward/forward_cuda.h"

#include <glog/logging.h>

#include <algorithm>
#include <cmath>
#include <utility>

#include "kernels/attention/attention_prefill_cuda.h"
#include "kernels/layer/embedding_cuda.h"
#include "kernels/layer/rms_norm_cuda.h"
#include "kernels/layer/rope.h"
#include "kernels/layer/rope_cuda.h"
#include "kernels/layer/silu_mul_cuda.h"

namespace lorikeet::model {

using kernels::DeviceBuffer;

CudaForward::CudaForward(const ShardPlan& plan, int rank, const CudaModelOptions& options, const DeviceWeights& weights,
                         const kernels::LoraSlots* slots, CudaLinear linear)
    : plan_(plan),
      rank_(rank),
      options_(options),
      weights_(&weights),
      slots_(slots),
      linear_(std::move(linear)),
      heads_(plan.shard(rank).heads.size()),
      kv_heads_(plan.shard(rank).kv_heads.size()),
      intermediate_(plan.shard(rank).intermediate.size()),
      decode_division_(heads_, kv_heads_, kernels::device_properties().multiprocessors),
      shares_device_(options.shares_device || kernels::device_properties().multi_process_service) {}

Result<CudaForward> CudaForward::make(const ShardPlan& plan, int rank, const CudaModelOptions& options,
                                      const DeviceWeights& weights, const kernels::LoraSlots* slots,
                                      int32_t logits_rows, int64_t logits_stride) {
  int32_t max_outputs = 0;
  int32_t max_inputs = 0;  // as they are given
  int32_t max_stored = 0;  // as they are stored: groups may be filled up
  for (const DeviceLayer& layer : weights.layers) {
    for (const DeviceLinear* linear : {&layer.qkv, &layer.o, &layer.gate_up, &layer.down}) {
      max_outputs = std::max(max_outputs, linear->all_outputs());
      max_inputs = std::max(max_inputs, linear->inputs);
      for (const DeviceProduct& product : linear->products) {
        const auto* packed = std::get_if<kernels::PackedInt4Weight>(&product.weight);
        max_stored = std::max(max_stored, packed != nullptr ? packed->k : linear->inputs);
      }
    }
  }
  const kernels::DeviceMemory before = kernels::device_memory();
  auto linear = CudaLinear::make(options.dtype, options.max_num_batched_tokens, max_outputs, max_stored);
  if (!linear) return tl::unexpected(linear.error());
  CudaForward forward(plan, rank, options, weights, slots, *std::move(linear));
  forward.logits_stride_ = logits_stride;
  if (slots != nullptr) {
    auto lora = kernels::LoraProducts::make(options.max_num_batched_tokens, max_inputs, options.max_lora_rank);
    if (!lora) return tl::unexpected(lora.error());
    forward.lora_ = std::make_unique<kernels::LoraProducts>(*std::move(lora));
    auto stream = kernels::Stream::make();
    if (!stream) return tl::unexpected(stream.error());
    for (const int32_t highest : forward.lora_rank_classes(1)) {
      if (highest > kernels::kMostFusedRank) continue;
      auto fused = kernels::Int4LoraScratch::make(max_inputs, highest, *stream);
      if (!fused) return tl::unexpected(fused.error());
      forward.fused_scratch_[highest] = *std::move(fused);
    }
    stream->synchronize();
  }
  const kernels::DeviceMemory after = kernels::device_memory();
  forward.bytes_ = before.free_bytes > after.free_bytes ? before.free_bytes - after.free_bytes : 0;
  if (auto ok = forward.allocate(logits_rows); !ok) return tl::unexpected(ok.error());
  if (auto ok = forward.prepare_parts(); !ok) return tl::unexpected(ok.error());
  return forward;
}

Result<void> CudaForward::allocate(int32_t logits_rows) {
  const ModelConfig& config = plan_.config();
  const auto tokens = static_cast<uint64_t>(options_.max_num_batched_tokens);
  const auto hidden = static_cast<uint64_t>(config.hidden_size);
  const auto head_dim = static_cast<uint64_t>(config.head_dim);
  const auto intermediate = static_cast<uint64_t>(intermediate_);
  const auto q_width = static_cast<uint64_t>(heads_) * head_dim;
  const auto qkv_width = static_cast<uint64_t>(heads_ + 2 * kv_heads_) * head_dim;
  const auto rows = static_cast<uint64_t>(logits_rows);
  auto stream = kernels::Stream::make();
  if (!stream) return tl::unexpected(stream.error());
  const uint64_t half = kernels::size_of(options_.dtype);
  struct Wish {
    DeviceBuffer& buffer;
    uint64_t bytes;
  };
  const uint64_t done_counters_bytes = static_cast<uint64_t>(config.num_layers) * kNumProjections * sizeof(uint32_t);
  const uint64_t workspace =
      kernels::decode_attention_workspace(options_.max_num_seqs, heads_, kv_heads_, config.head_dim);
  for (const Wish& wish :
       {Wish{resolved_, tokens * sizeof(int32_t)}, Wish{residual_, tokens * hidden * sizeof(float)},
        Wish{residual_b_, kernels::kNormRows * hidden * sizeof(float)}, Wish{normed_, tokens * hidden * half},
        Wish{delta_, tokens * hidden * half}, Wish{qkv_, tokens * qkv_width * half},
        Wish{mixed_, tokens * q_width * half}, Wish{gate_up_, tokens * 2 * intermediate * half},
        Wish{activated_, tokens * intermediate * half}, Wish{angles_, tokens * head_dim * sizeof(float)},
        Wish{frequencies_, head_dim / 2 * sizeof(float)}, Wish{attention_workspace_, workspace},
        Wish{done_counters_, done_counters_bytes}, Wish{head_input_, rows * hidden * half},
        Wish{logits_, rows * static_cast<uint64_t>(logits_stride_) * sizeof(float)}}) {
    auto made = DeviceBuffer::allocate(wish.bytes, "activations");
    if (!made) return tl::unexpected(made.error());
    wish.buffer = *std::move(made);
    kernels::fill_bytes(wish.buffer.data(), 0, wish.bytes, *stream);
    bytes_ += wish.bytes;
  }
  kernels::YarnParameters yarn;
  if (config.yarn) {
    yarn = {config.yarn->factor, static_cast<double>(config.yarn->original_max_position_embeddings),
            config.yarn->beta_fast, config.yarn->beta_slow, config.yarn->truncate};
    rope_factor_ = config.yarn->attention_factor;
  }
  const std::vector<float> table = kernels::rope_inverse_frequencies(config.head_dim, config.rope_theta, yarn);
  kernels::copy_to_device(frequencies_.data(), table.data(), frequencies_.bytes(), *stream);
  stream->synchronize();
  return {};
}

void CudaForward::norm(const float* weight, const void* delta, const int32_t* rows, int32_t tokens, void* out,
                       const StepContext& context, uint32_t* done) {
  kernels::AddRmsNormArgs args;
  args.residual = stream_;
  args.residual_out = residual_.as<float>();
  args.delta = delta;
  args.weight = weight;
  args.epsilon = plan_.config().rms_norm_eps;
  args.rows = rows;
  args.out = out;
  args.dtype = options_.dtype;
  args.tokens = tokens;
  args.width = plan_.config().hidden_size;
  args.done = done;
  if (delta != nullptr && sums_in_norm(tokens, context)) {
    context.group->all_reduce_norm(args, context.stream);
  } else {
    kernels::add_rms_norm_cuda(args, context.stream);
  }
  stream_ = residual_.as<float>();
}

ProductExtras CudaForward::norm_before(int32_t layer, Projection first, const float* weight, const void* delta,
                                       const StepSize& size, const StepContext& context) {
  // Adapters' kernels read the normed rows from memory. A sum over ranks is made once, not by every block
  // of the product.
  ProductExtras extras;
  extras.follows_sum = delta != nullptr && sums_in_norm(size.tokens, context);
  if (extras.follows_sum || takes_x_for_lora(layer, first, size) ||
      !linear_.takes_norm(linear_of(layer, first), size.tokens, fused_size(layer, first, size))) {
    norm(weight, delta, nullptr, size.tokens, normed_.data(), context, done_counter(layer, first, size));
    return extras;
  }
  extras.norm.residual = stream_;
  extras.norm.delta = delta;
  if (delta != nullptr) {
    stream_ = stream_ == residual_.as<float>() ? residual_b_.as<float>() : residual_.as<float>();
    extras.norm.residual_out = stream_;
  }
  extras.norm.weight = weight;
  extras.norm.epsilon = plan_.config().rms_norm_eps;
  extras.follows_product = delta != nullptr && context.group == nullptr;  // the one that wrote delta
  return extras;
}

bool CudaForward::sums_in_norm(int32_t tokens, const StepContext& context) const {
  return context.group != nullptr && context.group->takes_norm(tokens, plan_.config().hidden_size, options_.dtype);
}

void CudaForward::reduce(int32_t tokens, const StepContext& context) {
  if (context.group == nullptr || sums_in_norm(tokens, context)) return;
  context.group->all_reduce(delta_.data(),
                            static_cast<size_t>(tokens) * static_cast<size_t>(plan_.config().hidden_size),
                            options_.dtype, context.stream);
}

const DeviceLinear& CudaForward::linear_of(int32_t layer, Projection first) const {
  const DeviceLayer& w = weights_->layers[static_cast<size_t>(layer)];
  switch (first) {
    case Projection::q:
      return w.qkv;
    case Projection::o:
      return w.o;
    case Projection::gate:
      return w.gate_up;
    default:
      CHECK(first == Projection::down);
      return w.down;
  }
}

void CudaForward::embed(const StepSize& size, const StepArrays& arrays, const int32_t* drawn,
                        const StepContext& context) {
  const ModelConfig& config = plan_.config();
  kernels::EmbeddingArgs embedding;
  embedding.token_ids = arrays.token_ids;
  embedding.drawn = drawn;
  embedding.weight = weights_->embedding.data();
  embedding.dtype = options_.dtype;
  embedding.vocab = config.vocab_size;
  embedding.hidden = config.hidden_size;
  embedding.tokens = size.tokens;
  if (size.lora_bytes > 0) {
    embedding.slots = arrays.adapter_slots;
    embedding.lora = slots_->embedding_table();
  }
  embedding.done_counters = done_counters_.as<uint32_t>();
  embedding.num_done_counters = static_cast<int32_t>(done_counters_.bytes() / sizeof(uint32_t));
  embedding.resolved = resolved_.as<int32_t>();
  embedding.residual = residual_.as<float>();
  kernels::embedding_cuda(embedding, context.stream);

  kernels::RopeAnglesArgs angles;
  angles.positions = arrays.positions;
  angles.inverse_frequencies = frequencies_.as<float>();
  if (size.frequency_tables > 0) {
    angles.inverse_frequencies = arrays.frequencies;
    angles.table_of_token = arrays.frequency_table_of;
  }
  angles.factor = rope_factor_;
  angles.tokens = size.tokens;
  angles.head_dim = config.head_dim;
  angles.cos_sin = angles_.as<float>();
  kernels::rope_angles_cuda(angles, context.stream);
}

void CudaForward::attention(int32_t layer, const StepSize& size, const StepArrays& arrays, const StepContext& context) {
  const ModelConfig& config = plan_.config();
  const DeviceLayer& w = weights_->layers[static_cast<size_t>(layer)];
  const int64_t qkv_width = int64_t{heads_ + 2 * kv_heads_} * config.head_dim;
  const int64_t q_width = int64_t{heads_} * config.head_dim;
  kernels::LoraArgs lora = lora_args(layer, Projection::q, size, arrays);
  lora.x_done = done_counter(layer, Projection::q, size);
  lora.x_blocks = size.tokens;
  ProductExtras extras;
  if (in_parts() && layer > 0) {  // normed behind the layer before
    wait_for_parts(context);
  } else {
    extras = norm_before(layer, Projection::q, w.input_norm.as<float>(), layer == 0 ? nullptr : delta_.data(), size,
                         context);
  }
  project(layer, Projection::q, {normed_.data(), config.hidden_size}, {qkv_.data(), qkv_width}, lora, size, context,
          extras);

  kernels::RopeArgs rope;
  rope.qkv = qkv_.data();
  rope.dtype = options_.dtype;
  rope.bias = w.qkv_bias.as<float>();
  rope.q_norm = w.q_norm.as<float>();
  rope.k_norm = w.k_norm.as<float>();
  rope.norm_epsilon = config.rms_norm_eps;
  rope.cos_sin = angles_.as<float>();
  rope.positions = arrays.positions;
  rope.log_n_length = config.use_logn_attn ? config.seq_length : 0;
  rope.kv_slots = arrays.kv_slots;
  rope.tokens = size.tokens;
  rope.heads = heads_;
  rope.cache = context.kv.layer(layer);
  const bool decode_only = size.prefill_rows == 0;
  if (!decode_only) kernels::rope_and_store_kv_cuda(rope, context.stream);

  lora = lora_args(layer, Projection::o, size, arrays);
  lora.x_done = done_counter(layer, Projection::o, size);
  const auto describe = [&](auto& args) {  // what both kinds of attention take alike
    args.q = qkv_.data();
    args.q_stride = qkv_width;
    args.out = mixed_.data();
    args.dtype = options_.dtype;
    args.heads = heads_;
    args.cache = rope.cache;
    args.scale = 1 / std::sqrt(static_cast<float>(config.head_dim));
  };
  if (size.decode_rows > 0) {
    kernels::DecodeAttentionArgs args;
    describe(args);
    args.query_tokens = arrays.decode_tokens;
    args.contexts = arrays.decode_contexts;
    args.table_begins = arrays.decode_table_begins;
    args.block_tables = arrays.block_tables;
    args.pieces = arrays.decode_pieces;
    args.rows = size.decode_rows;
    args.division = decode_division_;
    args.workspace = attention_workspace_.as<float>();
    args.rotate = decode_only;
    args.rope = rope;
    args.runs = arrays.decode_runs;
    args.done = done_counter(layer, Projection::o, size);
    lora.x_blocks = kernels::decode_attention_cuda(args, context.stream);
  }
  if (size.query_tiles > 0) {
    kernels::PrefillAttentionArgs args;
    describe(args);
    args.first_tokens = arrays.prefill_first_tokens;
    args.counts = arrays.prefill_counts;
    args.starts = arrays.prefill_starts;
    args.table_begins = arrays.prefill_table_begins;
    args.block_tables = arrays.block_tables;
    args.tile_rows = arrays.tile_rows;
    args.tile_firsts = arrays.tile_firsts;
    args.tiles = size.query_tiles;
    kernels::prefill_attention_cuda(args, context.stream);
  }
  if (in_parts()) {
    project_parts(layer, Projection::o, {mixed_.data(), q_width}, w.post_attention_norm.as<float>(), size, context);
    return;
  }
  project(layer, Projection::o, {mixed_.data(), q_width}, {delta_.data(), config.hidden_size}, lora, size, context);
  reduce(size.tokens, context);
}

void CudaForward::mlp(int32_t layer, const StepSize& size, const StepArrays& arrays, const StepContext& context) {
  const DeviceLayer& w = weights_->layers[static_cast<size_t>(layer)];
  const DeviceRows x = {normed_.data(), plan_.config().hidden_size};
  const DeviceRows activated = {activated_.data(), intermediate_};
  const DeviceRows gate_up = {gate_up_.data(), 2 * int64_t{intermediate_}};
  if (in_parts()) {
    const bool last = layer + 1 == plan_.config().num_layers;
    const DeviceBuffer& norm_behind =
        last ? weights_->final_norm : weights_->layers[static_cast<size_t>(layer) + 1].input_norm;
    silu_parts(w.gate_up, activated, size, context);
    project_parts(layer, Projection::down, activated, norm_behind.as<float>(), size, context);
    return;
  }
  kernels::LoraArgs lora = lora_args(layer, Projection::gate, size, arrays);
  kernels::LoraArgs down_lora = lora_args(layer, Projection::down, size, arrays);
  ProductExtras extras =
      norm_before(layer, Projection::gate, w.post_attention_norm.as<float>(), delta_.data(), size, context);
  lora.x_done = done_counter(layer, Projection::gate, size);
  lora.x_blocks = size.tokens;
  if (fuses_lora(layer, Projection::gate, size)) {
    if (takes_x_for_lora(layer, Projection::gate, size)) {
      lora.done = done_counter(layer, Projection::down, size);
      down_lora.x_done = lora.done;
      down_lora.x_blocks = linear_.lora_blocks(w.gate_up, size.tokens, fused_size(layer, Projection::gate, size));
    }
    const kernels::Int4Lora fused = fused_lora(lora, size);
    extras.lora = &fused;
    linear_.run_silu(w.gate_up, x, activated, size.tokens, context.stream, extras);
  } else if (size.lora_bytes > 0) {
    lora.silu_out = activated.data;
    lora.silu_stride = activated.stride;
    lora.done = done_counter(layer, Projection::down, size);
    down_lora.x_done = lora.done;
    down_lora.x_blocks = project(layer, Projection::gate, x, gate_up, lora, size, context);
  } else if (w.gate_up.fuses_silu()) {
    linear_.run_silu(w.gate_up, x, activated, size.tokens, context.stream, extras);
  } else {
    linear_.run(w.gate_up, x, gate_up, size.tokens, context.stream, extras);
    kernels::SiluMulArgs silu;
    silu.gate = gate_up.data;
    silu.up = gate_up_.as<unsigned char>() + static_cast<size_t>(intermediate_) * kernels::size_of(options_.dtype);
    silu.stride = gate_up.stride;
    silu.out = activated.data;
    silu.dtype = options_.dtype;
    silu.tokens = size.tokens;
    silu.width = intermediate_;
    kernels::silu_mul_cuda(silu, context.stream);
  }
  project(layer, Projection::down, activated, {delta_.data(), plan_.config().hidden_size}, down_lora, size, context);
  reduce(size.tokens, context);
}

void CudaForward::layers(const StepSize& size, const StepArrays& arrays, const int32_t* drawn,
                         const StepContext& context) {
  CHECK_LE(size.tokens, options_.max_num_batched_tokens);
  stream_ = residual_.as<float>();
  fused_turn_ = 0;
  step_fuses_ = fuses_lora(size);
  choose_parts(size, context);
  embed(size, arrays, drawn, context);
  for (int32_t i = 0; i < plan_.config().num_layers; ++i) {
    attention(i, size, arrays, context);
    mlp(i, size, arrays, context);
  }
  if (in_parts()) {
    wait_for_parts(context);
  } else {
    norm(weights_->final_norm.as<float>(), delta_.data(), nullptr, size.tokens, normed_.data(), context);
  }
}

void CudaForward::head(const void* x, int32_t rows, const unsigned char* lora_rows, int32_t max_rank,
                       const StepContext& context) {
  const ModelConfig& config = plan_.config();
  kernels::LoraArgs lora;
  if (lora_rows != nullptr) {
    lora.table = slots_->table();
    lora.rows = lora_plan(rows, max_rank).on_device(lora_rows, rows);
    lora.linear.first_entry = slots_->lm_head_entry();
    lora.linear.projections = 1;
    lora.linear.inputs = config.hidden_size;
    lora.linear.outputs[0] = plan_.shard(rank_).vocab.size();
    lora.dtype = options_.dtype;
    lora.x = x;
    lora.x_stride = config.hidden_size;
    lora.y = logits_.data();
    lora.y_stride = logits_stride_;
    lora.y_dtype = kernels::Dtype::f32;
    lora_->shrink(lora, context.stream);
  }
  linear_.run_head(weights_->lm_head, plan_.shard(rank_).vocab.size(), config.hidden_size,
                   {const_cast<void*>(x), config.hidden_size}, logits_.as<float>(), logits_stride_, rows,
                   context.stream);
  if (lora_rows != nullptr) lora_->expand(lora, context.stream);
}

void CudaForward::logits_of_all(const StepSize& size, const StepArrays& arrays, const StepContext& context) {
  head(normed_.data(), size.tokens, size.lora_bytes > 0 ? arrays.lora_rows : nullptr, size.lora_rank, context);
}

void CudaForward::logits_of(const int32_t* tokens, int32_t rows, const unsigned char* lora_rows,
                            const StepContext& context) {
  norm(weights_->final_norm.as<float>(), nullptr, tokens, rows, head_input_.data(), context);
  head(head_input_.data(), rows, lora_rows, options_.max_lora_rank, context);
}

}  // namespace lorikeet::model
