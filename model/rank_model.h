// The forward pass of one rank of the tensor-parallel group: weights, KV cache and adapter slots of one device.
#pragma once

#include <cstdint>
#include <memory>
#include <span>
#include <vector>

#include "comm/collective.h"
#include "kernels/error.h"
#include "model/adapter.h"
#include "model/weights.h"

namespace lorikeet::model {

struct RankModelOptions {
  int32_t block_size = 16;    // positions in a KV block
  int32_t num_blocks = 1024;  // blocks in the KV pool
  int32_t num_slots = 8;      // adapter slots
  int32_t num_threads = 1;    // threads of the CPU kernels
};

// How the token of one row is drawn. Definitions and order: formats reference, section 7 (vLLM's sampler).
struct RowSampling {
  float temperature = 1;  // < 1e-5: greedy
  float top_p = 1;
  int32_t top_k = 0;
  float min_p = 0;
  float repetition_penalty = 1, presence_penalty = 0, frequency_penalty = 0;
  uint64_t seed = 0;
  int32_t logprobs = -1;  // -1: none
};

// One distinct token id of a sequence, for the penalties.
struct TokenCount {
  int32_t token_id = 0;
  int32_t in_output = 0;   // how often it was generated
  bool in_prompt = false;
};

// One sequence's part of a step: positions [start, start + token_ids.size()).
struct BatchRow {
  std::span<const int32_t> token_ids;
  int32_t start = 0;
  std::span<const int32_t> block_table;     // [ceil((start + token_ids.size()) / block_size)] or more
  int32_t slot = -1;                        // adapter slot; -1: the base model
  bool sample = false;                      // draw the token of position start + token_ids.size()
  RowSampling sampling;
  std::span<const TokenCount> counts;       // where a penalty is on; ordered by token id
  std::span<const int32_t> logprob_targets; // not empty: [token_ids.size()], the log-probability of target i at position
                                            // start + i is wanted (prompt_logprobs); -1: not wanted there
};

struct TokenProbability {
  int32_t token_id = 0;
  float logprob = 0;
};

struct RowOutput {
  int32_t token_id = -1;
  std::vector<TokenProbability> logprobs;  // the k best, best first (ties: lower id first); drawn token appended if absent
  std::vector<float> target_logprobs;      // [logprob_targets.size()]
};

class RankModel {
 public:
  virtual ~RankModel() = default;

  // Puts this rank's part of an adapter into a slot, or empties it. Called between steps, by the thread that steps.
  virtual Result<void> set_adapter(int32_t slot, const Adapter& part) = 0;
  virtual void clear_adapter(int32_t slot) = 0;

  // Computes one step. Every rank of the group makes the same call and gets the same tokens. Throws
  // comm::CollectiveError when a peer is lost; the model's KV content is then void.
  virtual std::vector<RowOutput> step(std::span<const BatchRow> rows) = 0;

  // Bytes of one KV block on this rank.
  virtual uint64_t kv_block_bytes() const = 0;
};

// The CPU backend: float32 activations and KV cache, float accumulation in a fixed order per row, so that a row's result
// does not depend on the rest of the batch, on chunking, prefix hits or preemption.
Result<std::unique_ptr<RankModel>> make_cpu_model(RankWeights weights, const ShardPlan& plan, const RankModelOptions& options,
                                                  std::shared_ptr<comm::Collective> group);

}  // namespace lorikeet::model
