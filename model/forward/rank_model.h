// The forward pass of one rank of the tensor-parallel group: weights, KV cache and adapter slots of one device.
#pragma once

#include <cstdint>
#include <memory>
#include <span>
#include <vector>

#include "comm/collective/collective.h"
#include "kernels/base/error.h"
#include "kernels/base/resident_memory.h"
#include "kernels/base/shared_memory.h"
#include "kernels/sampling/token_constraint.h"
#include "model/adapter/adapter.h"
#include "model/adapter/adapter_slice.h"
#include "model/checkpoint/weights.h"

namespace lorikeet::model {

struct RankModelOptions {
  int32_t block_size = 16;        // positions in a KV block
  int32_t num_blocks = 1024;      // blocks in the KV pool
  int32_t num_slots = 8;          // adapter slots
  int32_t num_threads = 1;        // threads of the CPU kernels
  bool own_cores = false;         // whether each of them has a core for itself
  bool int8_activations = false;  // the CPU's int4 products round their x to 8 bits (kernels/int4/int8_gemm.h)
};

// How the token of one row is drawn. Definitions and order: formats reference, section 7 (vLLM's sampler).
struct RowSampling {
  float temperature = 1;  // < 1e-5: greedy
  float top_p = 1;
  int32_t top_k = 0;
  float min_p = 0;
  float repetition_penalty = 1, presence_penalty = 0, frequency_penalty = 0;
  uint64_t seed = 0;
  int32_t logprobs = -1;             // -1: none
  int32_t target_top_logprobs = -1;  // of every target: its rank and so many of the best tokens; -1: neither
};

// One distinct token id of a sequence, for the penalties.
struct TokenCount {
  int32_t token_id = 0;
  int32_t in_output = 0;  // how often it was generated
  bool in_prompt = false;
};

// One sequence's part of a step: positions [start, start + token_ids.size()).
struct BatchRow {
  std::span<const int32_t>
      token_ids;  // a single kPendingToken: the token that row `pending_row` of the previous step draws
  int32_t pending_row = -1;
  int32_t prompt_size = 0;  // of the sequence, as first submitted (dynamic NTK takes its base from it)
  int32_t start = 0;
  std::span<const int32_t> block_table;  // [ceil((start + token_ids.size()) / block_size)] or more
  int32_t slot = -1;                     // adapter slot; -1: the base model
  bool sample = false;                   // draw the token of position start + token_ids.size()
  // Up to kMostDecodePositions known tokens, each of which is to have the bits that it has as the only one of its row,
  // as decoding computed it once. On the CPU every row is so. On a GPU these rows are decode rows (and steps of such rows
  // alone are captured ones), as long as a step has no more positions of them than it may have rows; their bits are those
  // of a lone row in steps of as many tokens as model/forward/cuda_model.h says.
  bool decode = false;
  RowSampling sampling;
  std::span<const TokenCount> counts;   // where a penalty is on; ordered by token id; a pending token is not in it and
                                        // is counted by the model
  kernels::TokenConstraint constraint;  // of the draw; see there how it is meant
  // The constraint comes by constrain_step(), since it takes a token that the step before is still to draw; `constraint`
  // has the biases that it may have, at the most. Only where the model constrains_later().
  bool constrained_later = false;
  std::span<const int32_t> logprob_targets;  // not empty: [token_ids.size()], the log-probability of target i at
                                             // position start + i is wanted (prompt_logprobs); -1: not wanted there
};

inline constexpr int32_t kMostDecodePositions = 8;

// Stands for a token that the device knows and the host does not yet.
inline constexpr int32_t kPendingToken = -1;

// The token of a row from whose logits none can be drawn: the best of them, after penalties, temperature and noise, is
// not finite. Logits that are not numbers never win, so it takes a row of nothing else, or an infinite one.
inline constexpr int32_t kNoToken = -1;
// What a step takes that was begun before such a row was known: it must be computable, its output is thrown away. All
// ranks take the same, for the embedding and for the penalties.
inline constexpr int32_t kTokenInstead = 0;

struct TokenProbability {
  int32_t token_id = 0;
  float logprob = 0;
};

struct RowOutput {
  int32_t token_id = kNoToken;  // also of a row that does not sample
  std::vector<TokenProbability>
      logprobs;                        // the k best, best first (ties: lower id first); drawn token appended if absent
  std::vector<float> target_logprobs;  // [logprob_targets.size()]
  // Where asked for, [logprob_targets.size()]: tokens that are at least as probable, the target among them; the best.
  std::vector<int32_t> target_ranks;
  std::vector<std::vector<TokenProbability>> target_best;
};

// Of the step that was finished last. Zeros: not measured.
struct StepTimes {
  double ms = 0;       // from its first work on the device to its last
  double idle_ms = 0;  // of the device, from the end of the step before it to its begin
};

// Where a slice is on the host.
struct SliceBytes {
  const uint8_t* data = nullptr;
  std::shared_ptr<const void> owner = nullptr;      // it is there as long as this lives
  const kernels::ResidentMemory* memory = nullptr;  // that it lies in; null: in other memory
};

// A step is begun and finished apart, so that a device can run one while the host prepares the next. Steps finish in
// the order in which they were begun; at most kMaxStepsInFlight are begun and not finished.
//
// Threads: one thread calls begin_step, step_ready and finish_step. Another one may call set_adapter, set_slice,
// clear_adapter and dora_squared_norms meanwhile, for slots that no step in flight uses, and record_slot.
class RankModel {
 public:
  static constexpr int kMaxStepsInFlight = 2;

  virtual ~RankModel() = default;

  // Puts this rank's part of an adapter into a slot, or empties it. A DoRA adapter comes with its factors.
  virtual Result<void> set_adapter(int32_t slot, const Adapter& part) = 0;
  virtual void clear_adapter(int32_t slot) = 0;

  // The same of a slice in slice_layout().
  virtual Result<void> set_slice(int32_t slot, const AdapterSlice& slice, SliceBytes bytes) = 0;

  // Where slots outlive this process: writes down what set_slice has put there. Until then the rank's next process finds
  // the slot empty. A call of its own, since it takes time that nobody who waits for the adapter needs to wait for.
  virtual void record_slot(int32_t /*slot*/, const AdapterSlice& /*slice*/) {}
  virtual SliceLayout slice_layout() const { return SliceLayout::cpu_f32; }

  // DoRA: for every pair of `part` in the order layer, projection (pairs without magnitude give an empty vector):
  // the squared norms [outputs] of W + scale * B A over the inputs that this rank holds. Those of column-parallel
  // layers are whole; those of row-parallel layers must be added over the ranks, in rank order.
  virtual std::vector<std::vector<float>> dora_squared_norms(const Adapter& part) = 0;

  // Starts one step. Every rank of the group makes the same calls and gets the same tokens. The spans in `rows` need to
  // live only until the call returns. Throws comm::CollectiveError when a peer is lost; the KV content is then void.
  virtual void begin_step(std::span<const BatchRow> rows) = 0;

  // Whether rows may be constrained_later: the device computes their step while the host makes what their draws wait for.
  virtual bool constrains_later() const { return false; }

  // The constraints [rows] of the step that was begun last, where it has such rows; those of other rows are not looked
  // at. It must be given before another step is begun and before this one is finished; the spans need to live only until
  // the call returns. Throws as begin_step does.
  virtual void constrain_step(std::span<const kernels::TokenConstraint> constraints) { (void)constraints; }

  // Whether finish_step would return at once. The CPU backend computes in begin_step, so it is always ready.
  virtual bool step_ready() = 0;

  // Waits for the oldest step begun and gives its outputs, one per row. Throws as begin_step does.
  virtual std::vector<RowOutput> finish_step() = 0;

  // Forgets the steps that were begun and not finished, as if they had never been: their group is lost. Of backends
  // whose model outlives it. Thread: the one that steps.
  virtual void forget_steps() {}

  // Another number of threads for the CPU's kernels, as RankModelOptions have it. Thread: the one that steps, between
  // steps.
  virtual void use_threads(int32_t /*threads*/, bool /*own_cores*/) {}

  // Bytes of one KV block on this rank.
  virtual uint64_t kv_block_bytes() const = 0;

  // From the thread that finishes steps.
  virtual StepTimes step_times() const { return {}; }
};

// The CPU backend: float32 activations (but for what int8_activations rounds) and KV cache, float accumulation in a fixed order per row, so that a row's
// result does not depend on the rest of the batch, on chunking, prefix hits or preemption.
// Its KV cache lies in `kv`, of cpu_kv_bytes(), or in memory of its own where there is none.
Result<std::unique_ptr<RankModel>> make_cpu_model(RankWeights weights, const ShardPlan& plan,
                                                  const RankModelOptions& options,
                                                  std::shared_ptr<comm::Collective> group,
                                                  std::shared_ptr<const kernels::SharedMemory> kv = nullptr);
uint64_t cpu_kv_bytes(const ShardPlan& plan, int rank, const RankModelOptions& options);

}  // namespace lorikeet::model
