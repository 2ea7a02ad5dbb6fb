#include "model/forward/cuda_model.h"

#include <glog/logging.h>

#include <algorithm>
#include <array>
#include <chrono>
#include <deque>
#include <set>
#include <thread>
#include <utility>

#include "kernels/layer/rope.h"
#include "model/forward/cuda_adapters.h"
#include "model/forward/decode_graphs.h"
#include "model/forward/device_weights.h"
#include "model/forward/forward_cuda.h"
#include "model/forward/sampler_cuda.h"
#include "model/forward/step_memory.h"

namespace lorikeet::model {
namespace {

constexpr std::chrono::seconds kLongestStep{120};     // far above any step
constexpr std::chrono::microseconds kPollPeriod{20};  // far below any step
constexpr int32_t kPromptLogitsRows = 128;            // of logits that are made at a time, at least

class CudaModelImpl final : public CudaModel {
 public:
  CudaModelImpl(const ShardPlan& plan, int rank, const CudaModelOptions& options)
      : plan_(plan),
        config_(plan_.config()),
        rank_(rank),
        options_(options),
        device_(kernels::current_device()),
        graphs_(options.max_num_seqs) {}

  ~CudaModelImpl() override {
    abandon();
    if (stream_.handle() != nullptr) stream_.synchronize();
  }

  Result<void> take(DeviceWeights weights) {
    auto stream = kernels::Stream::make(/*urgent=*/true);
    if (!stream) return tl::unexpected(stream.error());
    stream_ = *std::move(stream);
    weights_ = std::make_unique<DeviceWeights>(std::move(weights));
    device_bytes_ = weights_->bytes();
    if (options_.num_slots > 0) {
      auto adapters = CudaAdapters::make(plan_, rank_, options_, *weights_);
      if (!adapters) return tl::unexpected(adapters.error());
      adapters_ = *std::move(adapters);
      device_bytes_ += adapters_->bytes();
    }
    return make_workspaces();
  }

  std::vector<std::string> adapters_left() const override {
    return adapters_ ? adapters_->left() : std::vector<std::string>();
  }

  uint64_t weight_bytes() const override { return weights_->bytes(); }
  uint64_t device_bytes() const override { return device_bytes_; }
  uint64_t kv_block_bytes() const override { return KvPool::block_bytes(plan_, rank_, options_); }
  int64_t graphs_captured() const override { return graphs_.captured(); }
  int64_t graph_replays() const override { return replays_; }
  LoraSteps lora_steps() const override { return lora_steps_; }
  int64_t steps_in_parts() const override { return forward_->steps_in_parts(); }
  StepTimes step_times() const override { return times_; }

  using CudaModel::start;
  Result<void> start(int32_t num_blocks, std::shared_ptr<comm::DeviceCollective> group, KvMemory memory,
                     bool capture_all) override {
    CHECK_EQ(group == nullptr, plan_.size() == 1) << "a group of " << plan_.size() << " ranks";
    kv_.reset();
    auto kv = KvPool::make(plan_, rank_, options_, num_blocks, std::move(memory));
    if (!kv) return tl::unexpected(kv.error());
    kv_ = std::make_unique<KvPool>(*std::move(kv));
    group_ = std::move(group);
    return capture_graphs(capture_all);
  }

  using CudaModel::reset;
  Result<void> reset(std::shared_ptr<comm::DeviceCollective> group, bool capture_all) override {
    abandon();
    stream_.synchronize();
    if (group_) comm::give_up(*group_);
    group_ = std::move(group);
    return capture_graphs(capture_all);
  }

  Result<void> set_adapter(int32_t slot, const Adapter& part) override {
    if (!adapters_) return fail("this server has no adapter slots");
    if (auto ok = kernels::use_device(device_); !ok) return ok;
    return adapters_->set(slot, part);
  }

  // Everything has been copied when it returns.
  Result<void> set_slice(int32_t slot, const AdapterSlice& slice, SliceBytes bytes) override {
    if (!adapters_) return fail("this server has no adapter slots");
    if (auto ok = kernels::use_device(device_); !ok) return ok;
    return adapters_->set(slot, slice, bytes);
  }

  void record_slot(int32_t slot, const AdapterSlice& slice) override {
    if (adapters_ && kernels::use_device(device_)) adapters_->record(slot, slice);
  }

  SliceLayout slice_layout() const override {
    return options_.dtype == kernels::Dtype::bf16 ? SliceLayout::cuda_bf16 : SliceLayout::cuda_f16;
  }

  void clear_adapter(int32_t slot) override {
    if (!adapters_ || !kernels::use_device(device_)) return;
    adapters_->clear(slot);
  }

  std::vector<std::vector<float>> dora_squared_norms(const Adapter& part) override {
    CHECK(adapters_ && kernels::use_device(device_));
    return adapters_->squared_norms(part);
  }

  void begin_step(std::span<const BatchRow> rows) override {
    CHECK(kv_) << "the model has not been started";
    CHECK_LT(steps_.size(), static_cast<size_t>(kMaxStepsInFlight));
    Step step;
    step.place = next_place_++;
    step.outputs.resize(rows.size());
    for (size_t i = 0; i < rows.size(); ++i) step.outputs[i].target_logprobs.resize(rows[i].logprob_targets.size());
    for (const BatchRow& row : rows) step.awaits_constraints |= row.sample && row.constrained_later;
    guarded([&] {
      if (options_.time_steps) begun_[step.place % kTimedSteps].record(stream_);
      if (!rows.empty()) queue(StepBatch(rows, options_.max_num_seqs), step);
      if (!step.awaits_constraints) queue_draws(step);
    });
    steps_.push_back(std::move(step));
  }

  bool constrains_later() const override { return true; }

  void constrain_step(std::span<const kernels::TokenConstraint> constraints) override {
    CHECK(!steps_.empty() && steps_.back().awaits_constraints);
    Step& step = steps_.back();
    CHECK_EQ(constraints.size(), step.outputs.size());
    for (SamplePortion& portion : step.portions) portion.constrain_later(constraints);
    step.awaits_constraints = false;
    guarded([&] { queue_draws(step); });
  }

  bool step_ready() override {
    CHECK(!steps_.empty() && !steps_.front().awaits_constraints);
    return done_[steps_.front().place % kMaxStepsInFlight].ready();
  }

  std::vector<RowOutput> finish_step() override {
    CHECK(!steps_.empty() && !steps_.front().awaits_constraints);
    guarded([&] { wait(done_[steps_.front().place % kMaxStepsInFlight]); });
    Step step = std::move(steps_.front());
    steps_.pop_front();
    for (size_t i = 0; i < step.portions.size(); ++i) {
      sampler_->finish(step.portions[i], step.results[i], step.drawn, step.outputs);
    }
    if (options_.time_steps) take_times(step.place);
    return std::move(step.outputs);
  }

 private:
  static constexpr size_t kTimedSteps = 2 * kMaxStepsInFlight;  // the step before the one that is finished is kept

  // A step that is begun and not finished.
  struct Step {
    uint64_t place = 0;               // counts all steps
    bool awaits_constraints = false;  // its draws are not queued yet
    bool logits_exist = false;        // of all its tokens
    std::vector<SamplePortion> portions;
    std::vector<SampleArrays> arrays;  // [portions], on the device
    std::vector<bool> with_adapters;   // [portions]
    std::vector<PortionResults> results;
    const int32_t* drawn = nullptr;  // [rows], pinned
    std::vector<RowOutput> outputs;
  };

  bool own_frequencies() const { return config_.use_dynamic_ntk && config_.seq_length > 0; }
  StepContext context() const { return {*kv_, group_.get(), stream_}; }

  Result<void> make_workspaces() {
    const int32_t logits_rows =
        std::max(options_.max_num_seqs, std::min(kPromptLogitsRows, options_.max_num_batched_tokens));
    auto sampler = CudaSampler::make(plan_, rank_, options_.max_num_seqs, logits_rows, options_.max_model_len);
    if (!sampler) return tl::unexpected(sampler.error());
    sampler_ = std::make_unique<CudaSampler>(*std::move(sampler));
    auto forward = CudaForward::make(plan_, rank_, options_, *weights_, adapters_ ? &adapters_->slots() : nullptr,
                                     logits_rows, sampler_->logits_stride());
    if (!forward) return tl::unexpected(forward.error());
    forward_ = std::make_unique<CudaForward>(*std::move(forward));
    auto memory = StepMemory::make(options_, config_, logits_rows, adapters_ != nullptr);
    if (!memory) return tl::unexpected(memory.error());
    memory_ = std::make_unique<StepMemory>(*std::move(memory));
    device_bytes_ += sampler_->bytes() + forward_->bytes() + memory_->device_bytes();
    for (auto* events : {&begun_, &ended_}) {
      for (kernels::Event& event : *events) {
        auto made = kernels::Event::make(/*timing=*/true);
        if (!made) return tl::unexpected(made.error());
        event = *std::move(made);
      }
    }
    for (kernels::Event& event : done_) {
      auto made = kernels::Event::make();
      if (!made) return tl::unexpected(made.error());
      event = *std::move(made);
    }
    return {};
  }

  // Waits for the device; a lost peer shows here. A device that does not end its work cannot be used again by this
  // process.
  void wait(const kernels::Event& event) {
    if (group_) return group_->wait(event);
    const auto deadline = std::chrono::steady_clock::now() + kLongestStep;
    while (!event.ready()) {
      if (std::chrono::steady_clock::now() > deadline) {
        LOG(FATAL) << "the GPU has not ended a step within " << kLongestStep.count() << " s";
      }
      std::this_thread::sleep_for(kPollPeriod);
    }
  }

  // After a CollectiveError nothing of this communicator may run again.
  template <class Work>
  void guarded(const Work& work) {
    try {
      work();
    } catch (const comm::CollectiveError&) {
      graphs_.clear();
      steps_.clear();
      throw;
    }
  }

  // Ends what is in flight, whatever state the group is in.
  void abandon() {
    graphs_.clear();
    if (group_ && !steps_.empty()) {
      const Step& last = steps_.back();
      if (last.awaits_constraints) done_[last.place % kMaxStepsInFlight].record(stream_);
      group_->abort();
      try {
        group_->wait(done_[steps_.back().place % kMaxStepsInFlight]);
      } catch (const comm::CollectiveError&) {  // the stream is let go of
      }
    }
    steps_.clear();
  }

  // Runs every class of steps once, on tokens that belong to nobody, and captures it. What is allocated or connected
  // when it is first used is so before anybody is served. Or the smallest alone: the others are captured behind the first
  // step of their class, since streams are waiting.
  Result<void> capture_graphs(bool all) {
    graphs_.clear();
    captures_late_ = !all;
    uncapturable_.clear();
    const auto run_once = [&](const StepSize& size, bool decode) {
      const StepBatch nobody(std::span<const BatchRow>{});
      const StepBlocks blocks = memory_->blocks(0, size, 0, {}, config_.head_dim);
      write_step(nobody, size, options_.block_size, forward_->decode_division(), blocks.host);
      std::fill_n(blocks.host.frequencies, int64_t{size.frequency_tables} * (config_.head_dim / 2), 0.0F);
      write_lora_rows({blocks.host.adapter_slots, static_cast<size_t>(size.tokens)}, size.lora_rank,
                      blocks.host.lora_rows);
      memory_->send(0, blocks.bytes, stream_);
      const auto work = [&] {
        forward_->layers(size, blocks.device, sampler_->drawn(), context());
        if (decode) {
          forward_->logits_of_all(size, blocks.device, context());
        } else {
          forward_->logits_of(blocks.device.positions, std::min(size.tokens, sampler_->limits().rows), nullptr,
                              context());
        }
      };
      work();
      if (forward_->fuses_lora(size)) fusing_.insert({size.tokens, size.lora_rank});
      done_[0].record(stream_);
      wait(done_[0]);
      return decode ? graphs_.capture(size.tokens, size.lora_rank, stream_, work) : Result<void>();
    };
    Result<void> ok;
    guarded([&] {
      forward_->agree_on_parts(context());
      if (!all) {
        ok = run_once(decode_size(graphs_.classes().front(), 0), true);
        return;
      }
      StepSize largest;
      largest.tokens = options_.max_num_batched_tokens;
      ok = run_once(largest, false);
      for (const int32_t rows : graphs_.classes()) {
        if (ok) ok = run_once(decode_size(rows, 0), true);
        if (!adapters_) continue;
        for (const int32_t rank : forward_->lora_rank_classes(rows)) {
          if (ok) ok = run_once(decode_size(rows, rank), true);
        }
      }
    });
    return ok;
  }

  // lora_rank 0: without adapters.
  StepSize decode_size(int32_t rows, int32_t lora_rank) const {
    StepSize size = StepSize::of_decode(rows, own_frequencies());
    add_adapters(size, lora_rank);
    return size;
  }

  void add_adapters(StepSize& size, int32_t lora_rank) const {
    if (lora_rank == 0) return;
    size.lora_rank = lora_rank;
    size.lora_bytes = forward_->lora_plan(size.tokens, lora_rank).bytes();
  }

  void write_lora_rows(std::span<const int32_t> slots, int32_t lora_rank, void* to) const {
    if (lora_rank == 0) return;
    forward_->lora_plan(static_cast<int32_t>(slots.size()), lora_rank).write(slots, adapters_->slots().ranks(), to);
  }

  // Of the adapters of a step; 0: it has none.
  int32_t highest_rank(const StepBatch& batch) const {
    int32_t highest = 0;
    for (const BatchRow& row : batch.rows) {
      // An adapter without pairs is one all the same.
      if (row.slot >= 0) highest = std::max({highest, 1, adapters_->slots().ranks()[static_cast<size_t>(row.slot)]});
    }
    return highest;
  }

  // Writes the step's description, sends it, and queues the step's kernels up to its last layer, or its logits.
  void queue(const StepBatch& batch, Step& step) {
    CHECK_LE(batch.rows.size(), static_cast<size_t>(options_.max_num_seqs));
    const kernels::Graph* graph = nullptr;
    bool of_class = false;  // it has the size of a class of graphs
    bool captures = false;  // it is the first step of a class whose graph is still to be captured
    int32_t row_class = 0, lora_rank = 0;
    StepSize size = StepSize::of(batch, own_frequencies());
    if (batch.decode_only()) {
      row_class = graphs_.class_of(batch.decode_rows);
      lora_rank = batch.adapters ? forward_->lora_rank_class(row_class, highest_rank(batch)) : 0;
      graph = graphs_.find(row_class, lora_rank);
      of_class = graph != nullptr || captures_late_;  // alike on all ranks, whether a capture succeeded or not
      captures = graph == nullptr && captures_late_ && !uncapturable_.contains({row_class, lora_rank});
      if (of_class) size = decode_size(row_class, lora_rank);
    }
    if (captures && forward_->fuses_lora(size)) fusing_.insert({size.tokens, size.lora_rank});
    if (!of_class && batch.adapters) add_adapters(size, highest_rank(batch));
    if (batch.adapters) {
      const bool fused = of_class && fusing_.count({size.tokens, size.lora_rank}) > 0;
      ++(fused ? lora_steps_.fused : lora_steps_.apart);
    }
    step.portions = plan_samples(batch, of_class, sampler_->limits());
    const auto portion_lora_bytes = [&](const SamplePortion& portion) -> uint64_t {
      if (of_class || !batch.adapters) return 0;
      return forward_->lora_plan(static_cast<int32_t>(portion.tokens.size()), options_.max_lora_rank).bytes();
    };

    const size_t place = step.place % kMaxStepsInFlight;
    std::vector<PortionSize> portion_sizes;
    for (const SamplePortion& portion : step.portions) {
      portion_sizes.push_back({&portion, portion_lora_bytes(portion)});
    }
    const StepBlocks blocks =
        memory_->blocks(place, size, table_entries(batch, options_.block_size), portion_sizes, config_.head_dim);
    write_step(batch, size, options_.block_size, forward_->decode_division(), blocks.host);
    if (size.frequency_tables > 0) write_frequencies(batch, config_, blocks.host.frequencies);
    write_lora_rows({blocks.host.adapter_slots, static_cast<size_t>(size.tokens)}, size.lora_rank,
                    blocks.host.lora_rows);
    for (size_t i = 0; i < step.portions.size(); ++i) {
      blocks.host_samples[i].write(step.portions[i]);
      if (portion_sizes[i].lora_bytes > 0) {
        write_lora_rows(step.portions[i].adapter_slots, options_.max_lora_rank, blocks.host_samples[i].lora_rows);
      }
    }
    memory_->send(place, blocks.bytes, stream_);

    const auto work = [&] {
      forward_->layers(size, blocks.device, sampler_->drawn(), context());
      forward_->logits_of_all(size, blocks.device, context());
    };
    if (graph != nullptr) {
      graph->launch(stream_);
      ++replays_;
    } else if (of_class) {
      work();
    } else {
      forward_->layers(size, blocks.device, sampler_->drawn(), context());
    }
    if (captures) {
      const auto captured = graphs_.capture(row_class, lora_rank, stream_, work);
      if (!captured) {
        LOG(WARNING) << captured.error().message;
        uncapturable_.insert({row_class, lora_rank});
      }
    }
    step.logits_exist = of_class;
    step.arrays = blocks.device_samples;
    for (const PortionSize& size_of : portion_sizes) step.with_adapters.push_back(size_of.lora_bytes > 0);
    step.results = memory_->results(place, batch.rows.size(), step.portions, plan_.size(), step.drawn);
  }

  // Queues the draws of a step whose layers are queued, the copies of its results, and its end.
  void queue_draws(const Step& step) {
    for (size_t i = 0; i < step.portions.size(); ++i) {
      const SamplePortion& portion = step.portions[i];
      const SampleArrays& arrays = step.arrays[i];
      std::copy(portion.counts.begin(), portion.counts.end(), step.results[i].counts);
      step.results[i].constraints.write(portion);
      if (!step.logits_exist) {
        forward_->logits_of(arrays.tokens, static_cast<int32_t>(portion.tokens.size()),
                            step.with_adapters[i] ? arrays.lora_rows : nullptr, context());
      }
      sampler_->queue(portion, arrays, forward_->logits(), forward_->resolved(), step.results[i], group_.get(),
                      stream_);
    }
    if (!step.outputs.empty()) {
      kernels::copy_to_host(const_cast<int32_t*>(step.drawn), sampler_->drawn(), step.outputs.size() * sizeof(int32_t),
                            stream_);
    }
    if (options_.time_steps) ended_[step.place % kTimedSteps].record(stream_);
    done_[step.place % kMaxStepsInFlight].record(stream_);
  }

  void take_times(uint64_t place) {
    times_ = {};
    ended_[place % kTimedSteps].synchronize();
    times_.ms = kernels::elapsed_ms(begun_[place % kTimedSteps], ended_[place % kTimedSteps]);
    if (place > 0) {
      times_.idle_ms = kernels::elapsed_ms(ended_[(place - 1) % kTimedSteps], begun_[place % kTimedSteps]);
    }
  }

  const ShardPlan plan_;
  const ModelConfig& config_;
  const int rank_;
  const CudaModelOptions options_;
  const int device_;
  uint64_t device_bytes_ = 0;

  std::shared_ptr<comm::DeviceCollective> group_;
  kernels::Stream stream_;
  std::unique_ptr<DeviceWeights> weights_;
  std::unique_ptr<CudaAdapters> adapters_;  // null: no slots
  std::unique_ptr<CudaSampler> sampler_;
  std::unique_ptr<CudaForward> forward_;
  std::unique_ptr<StepMemory> memory_;
  std::unique_ptr<KvPool> kv_;
  DecodeGraphs graphs_;
  bool captures_late_ = false;
  std::set<std::pair<int32_t, int32_t>> uncapturable_;  // rows and rank classes, of those that are captured late

  std::deque<Step> steps_;
  uint64_t next_place_ = 0;
  int64_t replays_ = 0;
  LoraSteps lora_steps_;
  std::set<std::pair<int32_t, int32_t>> fusing_;  // rows and rank classes of the graphs whose products apply adapters
  std::array<kernels::Event, kMaxStepsInFlight> done_;
  std::array<kernels::Event, kTimedSteps> begun_, ended_;
  StepTimes times_;
};

Result<void> check_options(const CudaModelOptions& options) {
  if (options.max_num_seqs < 1 || options.max_num_seqs > kernels::kMaxDecodeRows) {
    return fail("steps of {} sequences: 1 to {} are served on CUDA", options.max_num_seqs, kernels::kMaxDecodeRows);
  }
  if (options.max_num_batched_tokens < options.max_num_seqs) {
    return fail("steps of {} tokens cannot hold one of each of {} sequences", options.max_num_batched_tokens,
                options.max_num_seqs);
  }
  if (options.block_size < 8 || (options.block_size & (options.block_size - 1)) != 0) {
    return fail("KV blocks of {} positions: the CUDA kernels take powers of two from 8 on", options.block_size);
  }
  return {};
}

}  // namespace

Result<std::unique_ptr<CudaModel>> load_cuda_model(const WeightSource* source, const ShardPlan& plan, int rank,
                                                   const CudaModelOptions& options) {
  if (auto ok = check_options(options); !ok) return tl::unexpected(ok.error());
  auto weights = put_weights_on_device(source, plan, rank, options);
  if (!weights) return tl::unexpected(weights.error());
  return make_cuda_model(*std::move(weights), plan, rank, options);
}

Result<std::unique_ptr<CudaModel>> make_cuda_model(DeviceWeights weights, const ShardPlan& plan, int rank,
                                                   const CudaModelOptions& options) {
  if (auto ok = check_options(options); !ok) return tl::unexpected(ok.error());
  auto model = std::make_unique<CudaModelImpl>(plan, rank, options);
  if (auto ok = model->take(std::move(weights)); !ok) return tl::unexpected(ok.error());
  return model;
}

}  // namespace lorikeet::model
