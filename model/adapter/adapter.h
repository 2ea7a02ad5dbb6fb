// PEFT LoRA adapters: read once, checked against the base, cut with the base's shard plan, sent to every rank.
// Format: huggingface/peft tuners/lora (config.py, layer.py). y = W x + scale * B (A x), never merged.
#pragma once

#include <array>
#include <cstdint>
#include <filesystem>
#include <optional>
#include <span>
#include <string>
#include <vector>

#include "kernels/base/error.h"
#include "model/adapter/lora_limits.h"
#include "model/checkpoint/shard_plan.h"
#include "model/checkpoint/stored_floats.h"

namespace lorikeet::model {

// The pair of one projection of one layer (whole, or one rank's part of it).
// Column-parallel: A is whole, B is cut by output. Row-parallel: A is cut by input, B is whole.
// With DoRA y = f * (W x + scale * B (A x)) + bias, f[i] = magnitude[i] / ||W_i + scale * (B A)_i|| over all inputs of
// the de-quantised W. The norm needs the base weights, so the ranks make it at load (RankModel::dora_squared_norms).
struct LoraPair {
  int32_t rank = 0;                // true rank, never padded
  float scale = 0;                 // alpha / r, or alpha / sqrt(r) with rsLoRA; alpha_pattern applied
  int32_t inputs = 0;              // columns of A
  int32_t outputs = 0;             // rows of B
  StoredFloats a;                  // [rank, inputs]
  StoredFloats b;                  // [outputs, rank]
  std::vector<float> magnitude;    // DoRA: [outputs], cut as B is; empty otherwise
  std::vector<float> dora_factor;  // DoRA: [outputs], f above; empty until the norms of all ranks have been added
};

using LoraLayer = std::array<std::optional<LoraPair>, kNumProjections>;  // indexed by Projection

struct Adapter {
  std::string digest;             // 32 hex digits over config and tensors: the identity of the content
  std::vector<LoraLayer> layers;  // [num_layers]
  std::optional<LoraPair>
      embedding;  // y = E[id] + scale * B A[:, id]: inputs = vocab_size, outputs = hidden_size; whole on every rank
  std::optional<LoraPair> lm_head;  // column-parallel: outputs are cut as the vocabulary is
  uint64_t bytes = 0;               // of all A and B as they are stored
  int32_t max_rank = 0;

  bool uses_dora() const;
  void count_bytes();  // sets bytes and max_rank
};

struct AdapterOptions {
  int32_t max_rank = kMaxLoraRank;
  std::vector<std::string> within = {};  // directories without links below which the files lie; empty: anywhere
  int threads = 1;                       // that read, hash and look at the tensors
};

// Reads DIR/adapter_config.json and DIR/adapter_model.safetensors, once and into memory, where A and B stay as long as
// anything of the adapter does: a file that is replaced meanwhile gives the old content or the new one. Refuses, with module names and counts, everything that would be
// silently wrong (formats reference, section 5). The base checkpoint in config.dir is opened only where the adapter
// brings a copy of the base's embedding (it must be equal) or was made for the same model with an unpadded MLP (its
// neurons are then moved to where the checkpoint has them).
Result<Adapter> read_adapter(const std::filesystem::path& dir, const ModelConfig& config,
                             const AdapterOptions& options = {});

// The part of `adapter` that `rank` holds.
Adapter cut_adapter(const Adapter& adapter, const ShardPlan& plan, int rank);

// One rank's part as bytes for the way to that rank, and back. The bytes are a safetensors image with the digest and
// the scales in its metadata; decoding checks every size against the plan.
std::vector<uint8_t> encode_adapter(const Adapter& part);
Result<Adapter> decode_adapter(std::span<const uint8_t> bytes, const ShardPlan& plan, int rank);

}  // namespace lorikeet::model
