// The CPU backend of model/forward/rank_model.h.
#include <glog/logging.h>

#include <algorithm>
#include <chrono>
#include <deque>
#include <mutex>
#include <optional>
#include <utility>

#include "kernels/dense/dense_gemm.h"
#include "model/forward/dora_norms_cpu.h"
#include "model/forward/forward_cpu.h"
#include "model/forward/rank_model.h"
#include "model/forward/sampler_cpu.h"

namespace lorikeet::model {
namespace {

// Logits that are in memory at once, over the whole vocabulary: 64 MiB in float32.
constexpr int64_t kLogitsInMemory = 1 << 24;

// Of threads without work.
std::chrono::microseconds patience(bool own_cores) {
  return own_cores ? kernels::ThreadPool::kSpin : std::chrono::microseconds{};
}

class CpuModel final : public RankModel {
 public:
  CpuModel(RankWeights weights, const ShardPlan& plan, const RankModelOptions& options, KvCachesCpu caches,
           std::shared_ptr<comm::Collective> group)
      : weights_(std::move(weights)),
        plan_(plan),
        options_(options),
        group_(std::move(group)),
        pool_(options.num_threads, patience(options.own_cores)),
        forward_(weights_, plan_, std::move(caches), options_.int8_activations, *group_, pool_),
        slots_(static_cast<size_t>(options.num_slots)) {}

  Result<void> set_adapter(int32_t slot, const Adapter& part) override {
    if (slot < 0 || slot >= options_.num_slots) {
      return fail("adapter {} was sent to slot {}, but there are {}", part.digest, slot, options_.num_slots);
    }
    for (const LoraLayer& layer : part.layers) {
      for (const auto& pair : layer) {
        if (pair && pair->magnitude.size() != pair->dora_factor.size()) {
          return fail("adapter {} is a DoRA and has no factors yet", part.digest);
        }
      }
    }
    auto adapter = std::make_shared<const SlotAdapter>(part);
    const std::lock_guard lock(slots_mutex_);
    slots_[static_cast<size_t>(slot)].swap(adapter);
    return {};
  }

  Result<void> set_slice(int32_t slot, const AdapterSlice& slice, SliceBytes bytes) override {
    if (slot < 0 || slot >= options_.num_slots) {
      return fail("adapter {} was sent to slot {}, but there are {}", slice.digest, slot, options_.num_slots);
    }
    touch({bytes.data, slice.bytes});
    auto adapter = std::make_shared<const SlotAdapter>(slice, bytes.data, std::move(bytes.owner));
    const std::lock_guard lock(slots_mutex_);
    slots_[static_cast<size_t>(slot)].swap(adapter);
    return {};
  }

  void clear_adapter(int32_t slot) override {
    std::shared_ptr<const SlotAdapter> cleared;  // goes after the lock, which steps take: it may be much memory
    const std::lock_guard lock(slots_mutex_);
    slots_.at(static_cast<size_t>(slot)).swap(cleared);
  }

  std::vector<std::vector<float>> dora_squared_norms(const Adapter& part) override {
    return dora_squared_norms_cpu(part, weights_);
  }

  void begin_step(std::span<const BatchRow> rows) override {
    CHECK_LT(static_cast<int>(results_.size()), kMaxStepsInFlight);
    const Clock::time_point begin = Clock::now();
    std::vector<std::shared_ptr<const SlotAdapter>> slots;  // held for the step
    {
      const std::lock_guard lock(slots_mutex_);
      slots = slots_;
    }
    TokenBatch batch;
    std::vector<int32_t> pending;
    for (const BatchRow& row : rows) pending.push_back(append(row, slots, batch));
    std::vector<RowOutput> outputs(rows.size());
    if (batch.size() > 0) {
      const BatchAdapters adapters(batch.adapters);
      const std::vector<float> hidden = forward_.hidden_states(batch, adapters);
      finish_rows(rows, pending, adapters, hidden, outputs);
    }
    last_drawn_.clear();
    for (const RowOutput& output : outputs) last_drawn_.push_back(output.token_id);
    const Clock::time_point end = Clock::now();
    results_.push_back({std::move(outputs), {ms(end - begin), last_end_ ? ms(begin - *last_end_) : 0}});
    last_end_ = end;
  }

  bool step_ready() override { return true; }

  std::vector<RowOutput> finish_step() override {
    CHECK(!results_.empty());
    Finished finished = std::move(results_.front());
    results_.pop_front();
    times_ = finished.times;
    return std::move(finished.outputs);
  }

  void forget_steps() override {
    results_.clear();
    last_drawn_.clear();
    last_end_.reset();
  }

  void use_threads(int32_t threads, bool own_cores) override { pool_.resize(threads, patience(own_cores)); }

  StepTimes step_times() const override { return times_; }

  uint64_t kv_block_bytes() const override {
    return KvCachesCpu::block_bytes(plan_.config(), plan_.shard(group_->rank()).kv_heads.size(), options_.block_size);
  }

 private:
  using Clock = std::chrono::steady_clock;
  static double ms(Clock::duration time) { return std::chrono::duration<double, std::milli>(time).count(); }

  // Memory that another process has filled comes into this one page by page, here and not in a step.
  static void touch(std::span<const uint8_t> bytes) {
    constexpr size_t kPage = 4096;
    for (size_t at = 0; at < bytes.size(); at += kPage) {
      (void)*static_cast<const volatile uint8_t*>(bytes.data() + at);
    }
  }

  struct Finished {
    std::vector<RowOutput> outputs;
    StepTimes times;
  };

  // Appends a row's tokens to the batch; returns the token that stood for kPendingToken, -1 where none did.
  int32_t append(const BatchRow& row, const std::vector<std::shared_ptr<const SlotAdapter>>& slots,
                 TokenBatch& batch) const {
    const auto count = static_cast<int32_t>(row.token_ids.size());
    const int32_t blocks = (row.start + count + options_.block_size - 1) / options_.block_size;
    CHECK_GE(row.start, 0);
    CHECK_GE(static_cast<int32_t>(row.block_table.size()), blocks);
    for (int32_t i = row.start / options_.block_size; i < blocks; ++i) {
      CHECK_GE(row.block_table[static_cast<size_t>(i)], 0);
      CHECK_LT(row.block_table[static_cast<size_t>(i)], options_.num_blocks);
    }
    const SlotAdapter* adapter = row.slot < 0 ? nullptr : slots.at(static_cast<size_t>(row.slot)).get();
    if (row.slot >= 0) CHECK(adapter != nullptr) << "slot " << row.slot << " is empty";
    int32_t pending = -1;
    for (int32_t i = 0; i < count; ++i) {
      int32_t id = row.token_ids[static_cast<size_t>(i)];
      if (id == kPendingToken) {
        CHECK_EQ(count, 1);
        const int32_t drawn = last_drawn_.at(static_cast<size_t>(row.pending_row));
        id = pending = drawn == kNoToken ? kTokenInstead : drawn;
      }
      batch.ids.push_back(id);
      batch.attention.push_back({row.start + i, row.block_table.data()});
      batch.prompt_sizes.push_back(row.prompt_size);
      batch.adapters.push_back(adapter);
    }
    return pending;
  }

  // lm_head on the tokens whose logits somebody wants, and what is made of them, a slab of tokens at a time.
  void finish_rows(std::span<const BatchRow> rows, const std::vector<int32_t>& pending, const BatchAdapters& adapters,
                   const std::vector<float>& hidden, std::vector<RowOutput>& outputs) {
    std::vector<LogitsUse> uses;
    int32_t token = 0;
    for (size_t r = 0; r < rows.size(); ++r) {
      const auto size = static_cast<int32_t>(rows[r].token_ids.size());
      outputs[r].target_logprobs.assign(rows[r].logprob_targets.size(), 0.0F);
      for (int32_t i = 0; i < size; ++i, ++token) {
        LogitsUse use;
        use.row = r;
        use.token = token;
        if (!rows[r].logprob_targets.empty()) use.target = rows[r].logprob_targets[static_cast<size_t>(i)];
        use.target_index = i;
        use.sample = rows[r].sample && i + 1 == size;
        if (use.target >= 0 || use.sample) uses.push_back(use);
      }
    }
    // By what all ranks know alike, as they meet once per slab.
    const size_t slab = static_cast<size_t>(std::max<int64_t>(1, kLogitsInMemory / plan_.config().vocab_size));
    const std::span<const LogitsUse> all(uses);
    for (size_t begin = 0; begin < all.size(); begin += slab) {
      const auto part = all.subspan(begin, std::min(slab, all.size() - begin));
      std::vector<float> logits = logits_of(part, adapters, hidden);
      finish_rows_cpu(rows, part, pending, logits, plan_, *group_, pool_, outputs);
    }
  }

  // [uses, vocab shard]
  std::vector<float> logits_of(std::span<const LogitsUse> uses, const BatchAdapters& adapters,
                               const std::vector<float>& hidden) {
    const auto size = static_cast<size_t>(plan_.config().hidden_size);
    std::vector<float> x(uses.size() * size);
    std::vector<int32_t> tokens;
    for (size_t u = 0; u < uses.size(); ++u) {
      tokens.push_back(uses[u].token);
      std::copy_n(hidden.data() + static_cast<size_t>(uses[u].token) * size, size, x.data() + u * size);
    }
    const int32_t vocab = weights_.lm_head.n;
    std::vector<float> logits(uses.size() * static_cast<size_t>(vocab));
    kernels::dense_gemm_cpu(weights_.lm_head, x.data(), weights_.lm_head.k, static_cast<int32_t>(uses.size()),
                            logits.data(), vocab, pool_);
    kernels::lora_cpu(adapters.of_lm_head(tokens), x.data(), weights_.lm_head.k, logits.data(), vocab, pool_);
    return logits;
  }

  const RankWeights weights_;
  const ShardPlan plan_;
  const RankModelOptions options_;
  const std::shared_ptr<comm::Collective> group_;
  kernels::ThreadPool pool_;
  ForwardCpu forward_;

  std::mutex slots_mutex_;
  std::vector<std::shared_ptr<const SlotAdapter>> slots_;

  std::deque<Finished> results_;     // of steps that are begun and not finished
  std::vector<int32_t> last_drawn_;  // per row of the step that was begun last
  std::optional<Clock::time_point> last_end_;
  StepTimes times_;
};

}  // namespace

uint64_t cpu_kv_bytes(const ShardPlan& plan, int rank, const RankModelOptions& options) {
  return KvCachesCpu::memory_bytes(plan.config(), plan.shard(rank).kv_heads.size(), options.block_size,
                                   options.num_blocks);
}

Result<std::unique_ptr<RankModel>> make_cpu_model(RankWeights weights, const ShardPlan& plan,
                                                  const RankModelOptions& options,
                                                  std::shared_ptr<comm::Collective> group,
                                                  std::shared_ptr<const kernels::SharedMemory> kv) {
  if (options.block_size < 1 || options.num_blocks < 1) {
    return fail("a KV cache of {} blocks of {} positions holds nothing", options.num_blocks, options.block_size);
  }
  if (static_cast<int32_t>(weights.layers.size()) != plan.config().num_layers) {
    return fail("weights of {} layers were given for a model of {}", weights.layers.size(), plan.config().num_layers);
  }
  auto caches = KvCachesCpu::make(plan.config(), plan.shard(group->rank()).kv_heads.size(), options.block_size,
                                  options.num_blocks, std::move(kv));
  if (!caches) return tl::unexpected(caches.error());
  return std::make_unique<CpuModel>(std::move(weights), plan, options, *std::move(caches), std::move(group));
}

}  // namespace lorikeet::model
