#include "bench/model/step_runner.h"

#include <fmt/format.h>

#include <algorithm>
#include <chrono>
#include <limits>
#include <memory>
#include <numeric>

#include "bench/comm/lone_rank.h"
#include "kernels/peer/peer_memory.h"
#include "model/forward/kv_pool.h"

namespace lorikeet::model {
namespace {

constexpr int kWarmUpRounds = 90;                    // some two seconds
constexpr uint64_t kSpareBytes = uint64_t{3} << 30;  // of the device's memory, for graphs and libraries
constexpr int32_t kLongestContext = 131072;          // of the configuration with YaRN, as Qwen2.5's readme has it
constexpr int64_t kComputedTokens = 8192;            // of prompts, where these are repeated

double seconds_since(std::chrono::steady_clock::time_point begin) {
  return std::chrono::duration<double>(std::chrono::steady_clock::now() - begin).count();
}

}  // namespace

ShardPlan StepRunner::plan_of(const bench::StepBenchOptions& options) {
  ModelConfig config = must(read_model_config(options.model));
  if (options.context > config.max_position_embeddings && !config.yarn) {
    YarnScaling yarn;
    yarn.original_max_position_embeddings = config.max_position_embeddings;
    yarn.factor = static_cast<float>(kLongestContext) / static_cast<float>(config.max_position_embeddings);
    config.yarn = yarn;
    config.max_position_embeddings = kLongestContext;
  }
  return must(ShardPlan::make(config, options.ranks));
}

StepRunner::StepRunner(const bench::StepBenchOptions& options, int rank, const bench::StepFloors& floors,
                       comm::Rendezvous& store)
    : options_(options), rank_(rank), floors_(floors), store_(store), plan_(plan_of(options)) {
  shares_device_ = options_.shares_device || (must(kernels::device_count()) < options_.ranks && !options_.alone);
  load();
}

void StepRunner::load() {
  CudaModelOptions& options = model_options_;
  options.block_size = kBlockSize;
  options.max_num_seqs = options_.rows + 1;  // and a prompt beside them
  if (options_.fp8) options.kv_dtype = kernels::KvDtype::f8_e4m3;
  options.max_num_batched_tokens = kLongestPrompt;
  options.max_model_len = options_.context + 4096;
  options.num_slots = kAdapters;
  options.max_lora_rank = options_.lora_rank;
  const Adapter adapter = random_adapter(plan_, rank_);
  lora_bytes_ = static_cast<double>(adapter.bytes) / sizeof(float) * 2;
  options.lora_bytes = static_cast<uint64_t>(1.1 * kAdapters * lora_bytes_);
  options.time_steps = true;
  options.shares_device = shares_device_;
  const auto begin = std::chrono::steady_clock::now();
  model_ = must(load_cuda_model(nullptr, plan_, rank_, options));
  fmt::print("{}: random weights on the device after {:.1f} s", plan_.config().dir.filename().string(),
             seconds_since(begin));
  const int32_t adapters = options_.adapters ? kAdapters : 0;
  for (int32_t slot = 0; slot < adapters; ++slot) {
    const auto set = model_->set_adapter(slot, adapter);
    CHECK(set) << set.error().message;
  }
  fmt::print(", {} adapters after {:.1f} s\n", adapters, seconds_since(begin));
  const ModelConfig& config = plan_.config();
  const double embedding = 2.0 * config.vocab_size * config.hidden_size;
  step_bytes_ = static_cast<double>(model_->weight_bytes()) - embedding;
  kv_bytes_ = static_cast<double>(model_->kv_block_bytes()) / kBlockSize;
  for (const Projection p : kProjections) {
    layer_flops_ += 2.0 * output_size(config, p) * input_size(config, p) / options_.ranks;
  }
}

std::shared_ptr<comm::DeviceCollective> StepRunner::join() {
  if (options_.ranks == 1) return nullptr;
  if (options_.alone) return std::make_shared<bench::LoneRank>();
  comm::NcclOptions nccl;
  nccl.rank = rank_;
  nccl.size = options_.ranks;
  nccl.prefix = "bench";
  comm::PeerOptions peers;
  peers.enabled = options_.peers;
  peers.shares_device = shares_device_;
  std::shared_ptr<comm::DeviceCollective> group = must(comm::make_device_collective(store_, nccl, peers));
  const bool by_peers = group->takes_norm(1, plan_.config().hidden_size, kernels::Dtype::f16);
  fmt::print("sums of decode steps over {}\n", by_peers ? "the memory of peers" : "NCCL");
  return group;
}

void StepRunner::start(bool as_fit) {
  const auto begin = std::chrono::steady_clock::now();
  blocks_of_sequence_ = (options_.context + kWarmUpSteps + 4 * options_.steps) / kBlockSize + 1;
  const int32_t spare = kLongestPrompt / kBlockSize;
  int32_t rows = options_.rows;
  if (as_fit) {
    const uint64_t free_bytes = kernels::device_memory().free_bytes;
    const uint64_t most = (free_bytes - std::min(free_bytes, kSpareBytes)) / model_->kv_block_bytes();
    const auto fit = static_cast<int64_t>(most) - spare;
    rows = static_cast<int32_t>(std::clamp<int64_t>(fit / blocks_of_sequence_, 0, rows));
  }
  const int32_t blocks = rows * blocks_of_sequence_ + spare;
  KvMemory memory;
  if (as_fit) {
    const uint64_t bytes = model_->kv_block_bytes() * static_cast<uint64_t>(blocks);
    memory.memory = std::make_shared<kernels::PeerMemory>(must(kernels::PeerMemory::make(bytes)));
  }
  const auto started = model_->start(blocks, join(), memory, !as_fit);
  CHECK(started) << started.error().message;
  for (int32_t i = 0; i < rows; ++i) {
    StepSequence sequence;
    sequence.ids = random_ids(options_.context);
    sequence.blocks.resize(static_cast<size_t>(blocks_of_sequence_));
    std::iota(sequence.blocks.begin(), sequence.blocks.end(), i * blocks_of_sequence_);
    std::vector<int32_t> ids = sequence.ids;
    std::sort(ids.begin(), ids.end());
    ids.erase(std::unique(ids.begin(), ids.end()), ids.end());
    for (const int32_t id : ids) sequence.counts.push_back({id, 0, true});
    sequences_.push_back(std::move(sequence));
  }
  const int32_t computed = compute_prompts(as_fit ? kComputedTokens : std::numeric_limits<int64_t>::max());
  if (as_fit && rows > 0) repeat_keys_and_values(computed, blocks, memory);
  fmt::print("{} sequences of {} tokens and {} graphs after {:.1f} s\n", rows, options_.context,
             model_->graphs_captured(), seconds_since(begin));
}

std::vector<int32_t> StepRunner::random_ids(int32_t count) {
  std::vector<int32_t> ids(static_cast<size_t>(count));
  for (int32_t& id : ids) id = numbers_.below(plan_.config().vocab_size);
  return ids;
}

// As many tokens at a time as a step takes. Each step's tokens are a beginning of their own: keys and values are as
// random as those of one long prompt, in a time that does not grow with its square.
int32_t StepRunner::compute_prompts(int64_t most) {
  std::vector<BatchRow> rows;
  int32_t tokens = 0;
  int32_t blocks = 0;
  int64_t begun = 0;
  const auto compute = [&] {
    model_->begin_step(rows);
    model_->finish_step();
    rows.clear();
    tokens = 0;
  };
  for (const StepSequence& s : sequences_) {
    if (begun >= most) break;
    for (int32_t start = 0; start < options_.context && begun < most;) {
      BatchRow row;
      const int32_t count = std::min(options_.context - start, kLongestPrompt - tokens);
      row.token_ids = std::span<const int32_t>(s.ids).subspan(static_cast<size_t>(start), static_cast<size_t>(count));
      row.prompt_size = options_.context;
      row.start = start % kBlockSize;
      row.block_table = std::span<const int32_t>(s.blocks).subspan(static_cast<size_t>(start / kBlockSize));
      rows.push_back(row);
      start += count;
      tokens += count;
      begun += count;
      blocks = start < options_.context ? s.blocks[static_cast<size_t>(start / kBlockSize)] : s.blocks.back() + 1;
      if (tokens == kLongestPrompt || static_cast<int32_t>(rows.size()) == options_.rows) compute();
    }
  }
  if (!rows.empty()) compute();
  return blocks;
}

void StepRunner::repeat_keys_and_values(int32_t first, int32_t blocks, const KvMemory& memory) {
  const auto stream = must(kernels::Stream::make());
  for (const auto& layer : KvPool::layers_in(memory.memory->data(), plan_, rank_, model_options_, blocks)) {
    const uint64_t vectors = static_cast<uint64_t>(layer.kv_heads) * static_cast<uint64_t>(layer.block_size);
    const auto repeat = [&](void* begin, uint64_t block_bytes) {
      if (begin == nullptr) return;  // no scales
      auto* at = static_cast<unsigned char*>(begin);
      for (uint64_t done = static_cast<uint64_t>(first), all = static_cast<uint64_t>(blocks); done < all;) {
        const uint64_t count = std::min(done, all - done);
        kernels::copy_on_device(at + done * block_bytes, at, count * block_bytes, stream);
        done += count;
      }
    };
    repeat(layer.keys, vectors * static_cast<uint64_t>(layer.head_dim) * kernels::size_of(layer.dtype));
    repeat(layer.values, vectors * static_cast<uint64_t>(layer.head_dim) * kernels::size_of(layer.dtype));
    repeat(layer.key_scales, vectors * sizeof(float));
    repeat(layer.value_scales, vectors * sizeof(float));
  }
  stream.synchronize();
}

void StepRunner::begin_step(std::span<StepSequence> sequences, const Draw& draw, StepAdapters adapters,
                            const BatchRow* more) {
  std::vector<BatchRow> rows;
  for (size_t i = 0; i < sequences.size(); ++i) {
    const StepSequence& s = sequences[i];
    BatchRow row;
    row.token_ids = std::span<const int32_t>(s.ids).subspan(static_cast<size_t>(s.computed));
    row.pending_row = s.pending_row;
    row.prompt_size = options_.context;
    row.start = s.computed;
    row.block_table = s.blocks;
    if (adapters.count > 0) {
      row.slot = adapters.mixed ? numbers_.below(adapters.count) : static_cast<int32_t>(i) % adapters.count;
    }
    row.sample = true;
    row.sampling = draw.sampling;
    row.sampling.seed = i;
    if (draw.sampling.repetition_penalty != 1) row.counts = s.counts;
    rows.push_back(row);
  }
  if (more != nullptr) rows.push_back(*more);
  model_->begin_step(rows);
  for (size_t i = 0; i < sequences.size(); ++i) {
    StepSequence& s = sequences[i];
    s.computed = static_cast<int32_t>(s.ids.size());
    s.ids.push_back(kPendingToken);
    s.pending_row = static_cast<int32_t>(i);
  }
}

void StepRunner::finish_step(std::span<StepSequence> sequences) {
  const std::vector<RowOutput> outputs = model_->finish_step();
  for (size_t i = 0; i < sequences.size(); ++i) {
    std::vector<int32_t>& ids = sequences[i].ids;
    *std::find(ids.begin() + options_.context, ids.end(), kPendingToken) = outputs[i].token_id;
  }
}

std::span<StepSequence> StepRunner::behind_their_prompts(int32_t count) {
  const std::span<StepSequence> sequences(sequences_.data(), static_cast<size_t>(count));
  for (StepSequence& s : sequences) {
    s.ids.resize(static_cast<size_t>(options_.context));
    s.computed = options_.context - 1;
    s.pending_row = -1;
  }
  return sequences;
}

void StepRunner::warm_up(double seconds) {
  const auto begin = std::chrono::steady_clock::now();
  for (int round = 0; round < kWarmUpRounds && seconds_since(begin) < seconds; ++round) {
    const std::span<StepSequence> sequences = behind_their_prompts(1);
    for (int i = 0; i < kWarmUpSteps; ++i) {
      begin_step(sequences, {}, {});
      finish_step(sequences);
    }
  }
}

StepSequence StepRunner::new_prompt(int32_t tokens) {
  StepSequence sequence;
  sequence.ids = random_ids(tokens);
  sequence.blocks.resize(static_cast<size_t>(tokens / kBlockSize));
  std::iota(sequence.blocks.begin(), sequence.blocks.end(), rows() * blocks_of_sequence_);
  return sequence;
}

double StepRunner::decode_floor_ms(int32_t rows, double context, int32_t adapters) const {
  const double products =
      std::max(step_bytes_ / floors_.read, rows * layer_flops_ * plan_.config().num_layers / floors_.flops);
  return 1e3 * (products + (rows * context * kv_bytes_ + std::min(adapters, rows) * lora_bytes_) / floors_.read);
}

double StepRunner::prompt_floor_ms(int32_t tokens) const {
  const ModelConfig& config = plan_.config();
  const double products =
      std::max(step_bytes_ / floors_.read * floors_.flops, layer_flops_ * tokens * config.num_layers);
  const double attention =
      2.0 * tokens * tokens * config.num_heads * config.head_dim * config.num_layers / options_.ranks;
  return 1e3 * (products + attention) / floors_.flops;
}

}  // namespace lorikeet::model
