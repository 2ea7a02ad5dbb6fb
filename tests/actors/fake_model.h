// A rank's model without maths: it records what it is asked and draws tokens by a rule.
#pragma once

#include <atomic>
#include <deque>
#include <functional>
#include <map>
#include <mutex>
#include <new>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "actors/rank/rank_backend.h"
#include "comm/collective/collective.h"
#include "model/forward/rank_model.h"

namespace lorikeet::actors {

struct FakeRow {
  std::vector<int32_t> token_ids;
  int32_t pending_row = -1;
  int32_t start = 0;
  int32_t prompt_size = 0;
  std::vector<int32_t> blocks;
  int32_t slot = -1;
  bool sample = false;
  model::RowSampling sampling;
  std::vector<model::TokenCount> counts;
  std::vector<int32_t> targets;
  std::vector<kernels::TokenBias> biases;  // of the constraint
  std::vector<uint32_t> allowed;           // the same
  bool constrained_later = false;          // and not yet
  bool decode = false;
};

// Draws 1000 + position of the drawn token. Threads: as RankModel.
class FakeModel final : public model::RankModel {
 public:
  Result<void> set_adapter(int32_t slot, const model::Adapter& part) override {
    if (!adapter_error.empty()) return fail("{}", adapter_error);
    const std::lock_guard lock(mutex);
    slots[slot] = part;
    return {};
  }
  Result<void> set_slice(int32_t slot, const model::AdapterSlice& slice, model::SliceBytes bytes) override {
    if (!adapter_error.empty()) return fail("{}", adapter_error);
    const std::lock_guard lock(mutex);
    slices[slot] = {slice, bytes.data, std::move(bytes.owner), bytes.memory != nullptr};
    return {};
  }
  void record_slot(int32_t slot, const model::AdapterSlice& slice) override {
    {
      const std::lock_guard lock(mutex);
      recorded.emplace_back(slot, slice.digest);
    }
    if (on_record) on_record();
  }
  void clear_adapter(int32_t slot) override {
    const std::lock_guard lock(mutex);
    slots.erase(slot);
    slices.erase(slot);
  }
  std::vector<std::vector<float>> dora_squared_norms(const model::Adapter& part) override {
    std::vector<std::vector<float>> norms;
    for (const model::LoraLayer& layer : part.layers) {
      for (const auto& pair : layer) {
        if (pair) norms.emplace_back(pair->magnitude.size(), squared_norm);
      }
    }
    return norms;
  }

  void begin_step(std::span<const model::BatchRow> rows) override {
    if (lost_peer) throw comm::CollectiveError(comm::CollectiveFailure::peer_lost, "rank 1 is lost");
    std::vector<FakeRow> step;
    for (const model::BatchRow& row : rows) {
      step.push_back({{row.token_ids.begin(), row.token_ids.end()},
                      row.pending_row,
                      row.start,
                      row.prompt_size,
                      {row.block_table.begin(), row.block_table.end()},
                      row.slot,
                      row.sample,
                      row.sampling,
                      {row.counts.begin(), row.counts.end()},
                      {row.logprob_targets.begin(), row.logprob_targets.end()},
                      {row.constraint.biases.begin(), row.constraint.biases.end()},
                      {row.constraint.allowed.begin(), row.constraint.allowed.end()},
                      row.constrained_later,
                      row.decode});
    }
    const std::lock_guard lock(mutex);
    begun.push_back(step);
    in_flight.push_back(step);
  }
  bool constrains_later() const override { return later; }
  void constrain_step(std::span<const kernels::TokenConstraint> constraints) override {
    const std::lock_guard lock(mutex);
    for (size_t i = 0; i < begun.back().size(); ++i) {
      FakeRow& row = begun.back()[i];
      if (!row.constrained_later) continue;
      row.constrained_later = false;
      row.biases.assign(constraints[i].biases.begin(), constraints[i].biases.end());
      row.allowed.assign(constraints[i].allowed.begin(), constraints[i].allowed.end());
    }
  }
  bool step_ready() override { return ready; }
  model::StepTimes step_times() const override { return times; }
  std::vector<model::RowOutput> finish_step() override {
    const std::lock_guard lock(mutex);
    std::vector<model::RowOutput> outputs;
    for (const FakeRow& row : in_flight.front()) {
      model::RowOutput output;
      const auto end = row.start + static_cast<int32_t>(row.token_ids.size());
      if (row.sample) output.token_id = end == no_token_at ? model::kNoToken : 1000 + end;
      if (row.sample && row.sampling.logprobs >= 0) output.logprobs = {{1000 + end, -0.25F}};
      for (const int32_t target : row.targets) output.target_logprobs.push_back(-static_cast<float>(target));
      for (const int32_t target : row.targets) {
        if (row.sampling.target_top_logprobs < 0) break;
        output.target_ranks.push_back(target + 1);
        output.target_best.push_back({{target + 2, -0.125F}});
      }
      outputs.push_back(output);
    }
    in_flight.pop_front();
    return outputs;
  }
  void forget_steps() override {
    const std::lock_guard lock(mutex);
    in_flight.clear();
  }
  uint64_t kv_block_bytes() const override { return 1; }

  std::mutex mutex;  // guards what follows
  std::vector<std::vector<FakeRow>> begun;
  std::deque<std::vector<FakeRow>> in_flight;
  std::map<int32_t, model::Adapter> slots;
  struct Slice {
    model::AdapterSlice what;
    const uint8_t* bytes = nullptr;
    std::shared_ptr<const void> owner;
    bool in_memory = false;  // whether it was said in which
  };
  std::map<int32_t, Slice> slices;
  std::vector<std::pair<int32_t, std::string>> recorded;

  std::function<void()> on_record;  // called by record_slot
  int32_t no_token_at = -1;         // the position for which no row has a token
  std::atomic<bool> ready{true};
  bool later = false;  // constrains_later()
  std::atomic<bool> lost_peer{false};
  float squared_norm = 1;
  model::StepTimes times;
  std::string adapter_error;
};

// Two heads, one layer: enough for a shard plan over two ranks.
inline model::ModelConfig small_config() {
  model::ModelConfig config;
  config.hidden_size = 32;
  config.num_layers = 1;
  config.num_heads = 2;
  config.num_kv_heads = 2;
  config.head_dim = 16;
  config.intermediate_size = 256;
  config.vocab_size = 64;
  config.max_position_embeddings = 128;
  return config;
}

class FakeBackend final : public RankBackend {
 public:
  explicit FakeBackend(int32_t ranks = 1) : plan_(model::ShardPlan::make(small_config(), ranks).value()) {}

  Result<RankLoaded> load(const std::function<void(int, int)>& progress) override {
    const std::lock_guard wait(loading);
    if (!load_error.empty()) return fail("{}", load_error);
    if (no_memory_to_load) throw std::bad_alloc();
    progress(1, 1);
    return RankLoaded{num_blocks, 1, 1};
  }
  Result<std::shared_ptr<model::RankModel>> join(comm::Rendezvous& store, uint64_t epoch, int32_t blocks) override {
    store.set(rendezvous_prefix(epoch) + "joined", {});
    if (no_memory_to_join) throw std::bad_alloc();
    if (nobody_to_meet) throw comm::CollectiveError(comm::CollectiveFailure::peer_lost, "rank 0 is lost");
    joined_blocks = blocks;
    joined_epoch = epoch;
    aborted = false;
    model->forget_steps();
    return std::shared_ptr<model::RankModel>(model);
  }
  std::vector<std::string> adapters_left() const override { return left; }
  void abort(uint64_t before_epoch) override { aborted = before_epoch > joined_epoch; }
  const model::ShardPlan& shard_plan() const override { return plan_; }

  std::shared_ptr<FakeModel> model = std::make_shared<FakeModel>();
  std::mutex loading;  // whoever holds it keeps the rank from loading
  std::string load_error;
  bool no_memory_to_load = false, no_memory_to_join = false;
  std::atomic<bool> nobody_to_meet{false};
  std::vector<std::string> left;  // by a predecessor, in its slots
  int32_t num_blocks = 64;
  std::atomic<int32_t> joined_blocks{0};
  std::atomic<uint64_t> joined_epoch{0};
  std::atomic<bool> aborted{false};

 private:
  model::ShardPlan plan_;
};

}  // namespace lorikeet::actors
