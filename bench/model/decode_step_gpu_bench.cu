// Whole steps of the 14B model on one device, or cut over several, without actors: decode steps of several batch sizes, without adapters,
// with distinct ones and with a mix that changes at every step, prompts, and both in the same steps. Weights are random. Two steps are in
// flight, as when the scheduler plans ahead, and every token feeds the next step on the device.
// Each figure stands beside its floor: the bytes that a step must read at the read bandwidth, or the operations of its products at cuBLASLt's
// rate where they take longer, both measured in the same run. One factor changes at a time from a default point: batches; adapters, with who
// applied them; draws; prompts; mixed: how far apart the tokens of 32 rows are while prompts arrive, by --max-num-batched-tokens; runs: steps of
// known tokens, several positions of each sequence. With --kernels it prints the kernels' times instead. With --tensor-parallel-size each rank is
// a process with a device of its own (or a share of one, where there are fewer); figures and floors are those of rank 0. --nccl: no peer memory.
//   decode_step_gpu_bench [--only batches|adapters|draws|prompts|mixed|runs] [--rows N] [--context N] [--fp8]
//                         [--max-lora-rank N] [--kernels] [--shares-device] [--model DIR] [--steps N] [--tensor-parallel-size N] [--nccl]
#include <cstring>
#include <numeric>
#include <set>
#include <string>

#include "bench/comm/forked_ranks.h"
#include "bench/kernels/gpu_floors.cuh"
#include "bench/model/kernel_times.h"
#include "bench/model/step_bench_inputs.h"
#include "bench/model/step_bench_options.h"
#include "comm/collective/peer_collective.h"
#include "kernels/cuda/library_gemm.h"
#include "model/forward/cuda_model.h"
#include "tests/comm/collective/file_rendezvous.h"

namespace lorikeet::model {
namespace {

using kernels::bench::must;
using Options = bench::StepBenchOptions;

constexpr int32_t kAdapters = 64;  // in slots
constexpr int32_t kBlockSize = 16;
constexpr int kWarmUpSteps = 8;
constexpr int kWarmUpRounds = 90;  // some two seconds
constexpr int32_t kLongestPrompt = 2048;
constexpr int32_t kMixedRows = 32;  // that go on while prompts arrive

double seconds_since(std::chrono::steady_clock::time_point begin) {
  return std::chrono::duration<double>(std::chrono::steady_clock::now() - begin).count();
}

double percentile(std::vector<double> values, double share) {
  std::sort(values.begin(), values.end());
  return values.at(std::min(values.size() - 1, static_cast<size_t>(share * static_cast<double>(values.size()))));
}

class Bench {
 public:
  // `store`: where the ranks meet.
  Bench(const Options& options, int rank, comm::Rendezvous& store)
      : options_(options),
        rank_(rank),
        store_(store),
        plan_(must(ShardPlan::make(must(read_model_config(options.model)), options.ranks))) {}

  void run() {
    const int devices = must(kernels::device_count());
    shares_device_ = options_.shares_device || devices < options_.ranks;
    const auto used = kernels::use_device(rank_ % devices);
    CHECK(used) << used.error().message;
    // Records of the kernels are kept from before the first graph is captured.
    if (options_.kernels) times_ = std::make_unique<bench::KernelTimes>(must(bench::KernelTimes::make()));
    kernels::Stream stream = must(kernels::Stream::make());
    const kernels::DeviceProperties properties = kernels::device_properties();
    read_ = kernels::bench::measure_memory(stream).read;
    flops_ = measure_flops(stream);
    fmt::print("{} x {}: read {:.3f} TB/s (bulk copies), cuBLASLt fp16 {:.0f} TFLOP/s\n", options_.ranks,
               properties.name, read_ / 1e12, flops_ / 1e12);
    load();
    fill_cache();
    warm_up();
    fmt::print("{:64} {:>9} {:>9} {:>9} {:>6} {:>9} {:>9} {:>9}\n", "decode steps", "ms", "GPU ms", "floor ms", "share",
               "tokens/s", "idle us", "p99 us");
    const auto wanted = [&](const char* what) { return options_.only.empty() || options_.only == what; };
    if (wanted("batches")) {
      for (const int32_t rows : {1, 2, 4, 8, 16, 32, 48, 64, 80, 96, 128, 192, 256}) decode(rows, 0);
    }
    if (wanted("adapters")) {
      for (const int32_t rows : {1, 8, 32}) decode(rows, 1);
      for (const int32_t rows : {8, 32, 64}) decode(rows, rows);
      mixed_adapters_ = true;
      decode(32, 32);
      mixed_adapters_ = false;
    }
    if (wanted("draws")) {
      for (const int32_t rows : {1, 32, 64}) {
        for (const Draw& draw : draws()) {
          draw_ = draw;
          decode(rows, 0);
        }
      }
      draw_ = {};
    }
    if (wanted("prompts")) {
      for (const int32_t tokens : {kBlockSize, 512, kLongestPrompt}) prompt(tokens, -1);
      for (const int32_t tokens : {kBlockSize, kLongestPrompt}) prompt(tokens, 0);
    }
    if (wanted("runs")) {
      for (const int32_t count : {1, 8}) {
        for (const int32_t positions : {2, 4, kMostDecodePositions}) again(count, positions);
      }
    }
    if (wanted("mixed")) {
      fmt::print("{:64} {:>9} {:>9} {:>9} {:>9} {:>9}\n", "rows while prompts arrive", "gap ms", "p99 ms", "p99 / gap",
                 "tokens/s", "of prompts");
      for (const int32_t budget : {0, 128, 256, 512, 1024, kLongestPrompt}) mixed(budget);
    }
  }

 private:
  struct Sequence {
    std::vector<int32_t> ids, blocks;
    std::vector<TokenCount> counts;
    int32_t computed = 0;
    int32_t pending_row = -1;
  };

  static double measure_flops(const kernels::Stream& stream) {
    kernels::LibraryGemm library = must(kernels::LibraryGemm::make());
    constexpr int32_t kSize = 8192;
    const auto x = kernels::bench::random_halves(int64_t{kSize} * kSize, 1, stream);
    const auto weight = kernels::bench::random_halves(int64_t{kSize} * kSize, 2, stream);
    const auto out = kernels::bench::allocate(uint64_t{2} * kSize * kSize);
    kernels::LibraryGemmArgs args;
    args.x = x.data();
    args.x_stride = args.out_stride = args.m = args.n = args.k = kSize;
    args.weight = weight.data();
    args.out = out.data();
    return 2.0 * kSize * kSize * kSize / kernels::bench::microseconds(stream, [&] { library.run(args, stream); }) * 1e6;
  }

  void load() {
    CudaModelOptions options;
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
    const double load_s = seconds_since(begin);
    blocks_of_sequence_ = (options_.context + kWarmUpSteps + 4 * options_.steps) / kBlockSize + 1;
    const int32_t spare = kLongestPrompt / kBlockSize;
    const auto started = model_->start(options_.rows * blocks_of_sequence_ + spare, join());
    CHECK(started) << started.error().message;
    fmt::print("{}: random weights on the device after {:.1f} s, {} graphs after {:.1f} s\n",
               plan_.config().dir.filename().string(), load_s, model_->graphs_captured(), seconds_since(begin));
    for (int32_t slot = 0; slot < kAdapters; ++slot) {
      const auto set = model_->set_adapter(slot, adapter);
      CHECK(set) << set.error().message;
    }
    const ModelConfig& config = plan_.config();
    const double embedding = 2.0 * config.vocab_size * config.hidden_size;
    step_bytes_ = static_cast<double>(model_->weight_bytes()) - embedding;
    kv_bytes_ = static_cast<double>(model_->kv_block_bytes()) / kBlockSize;
    for (const Projection p : kProjections) {
      layer_flops_ += 2.0 * output_size(config, p) * input_size(config, p) / options_.ranks;
    }
  }

  std::shared_ptr<comm::DeviceCollective> join() {
    if (options_.ranks == 1) return nullptr;
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

  std::vector<int32_t> random_ids(int32_t count) {
    std::vector<int32_t> ids(static_cast<size_t>(count));
    for (int32_t& id : ids) id = numbers_.below(plan_.config().vocab_size);
    return ids;
  }

  // Computes the prompts of all sequences, as many tokens at a time as a step takes.
  void fill_cache() {
    for (int32_t i = 0; i < options_.rows; ++i) {
      Sequence sequence;
      sequence.ids = random_ids(options_.context);
      sequence.blocks.resize(static_cast<size_t>(blocks_of_sequence_));
      std::iota(sequence.blocks.begin(), sequence.blocks.end(), i * blocks_of_sequence_);
      for (int32_t id : std::set<int32_t>(sequence.ids.begin(), sequence.ids.end())) {
        sequence.counts.push_back({id, 0, true});
      }
      sequences_.push_back(std::move(sequence));
    }
    std::vector<BatchRow> rows;
    int32_t tokens = 0;
    const auto compute = [&] {
      model_->begin_step(rows);
      model_->finish_step();
      rows.clear();
      tokens = 0;
    };
    for (const Sequence& s : sequences_) {
      for (int32_t start = 0; start < options_.context;) {
        BatchRow row;
        const int32_t count = std::min(options_.context - start, kLongestPrompt - tokens);
        row.token_ids = std::span<const int32_t>(s.ids).subspan(static_cast<size_t>(start), static_cast<size_t>(count));
        row.prompt_size = options_.context;
        row.start = start;
        row.block_table = s.blocks;
        rows.push_back(row);
        start += count;
        tokens += count;
        if (tokens == kLongestPrompt || static_cast<int32_t>(rows.size()) == options_.rows) compute();
      }
    }
    if (!rows.empty()) compute();
  }

  // `more`: null, or a row behind those of the sequences.
  void begin_step(std::span<Sequence> sequences, int32_t adapters, const BatchRow* more = nullptr) {
    std::vector<BatchRow> rows;
    for (size_t i = 0; i < sequences.size(); ++i) {
      const Sequence& s = sequences[i];
      BatchRow row;
      row.token_ids = std::span<const int32_t>(s.ids).subspan(static_cast<size_t>(s.computed));
      row.pending_row = s.pending_row;
      row.prompt_size = options_.context;
      row.start = s.computed;
      row.block_table = s.blocks;
      if (adapters > 0) {
        row.slot = mixed_adapters_ ? numbers_.below(adapters) : static_cast<int32_t>(i) % adapters;
      }
      row.sample = true;
      row.sampling = draw_.sampling;
      row.sampling.seed = i;
      if (draw_.sampling.repetition_penalty != 1) row.counts = s.counts;
      rows.push_back(row);
    }
    if (more != nullptr) rows.push_back(*more);
    model_->begin_step(rows);
    for (size_t i = 0; i < sequences.size(); ++i) {
      Sequence& s = sequences[i];
      s.computed = static_cast<int32_t>(s.ids.size());
      s.ids.push_back(kPendingToken);
      s.pending_row = static_cast<int32_t>(i);
    }
  }

  // The oldest step's tokens; the step behind it takes them from the device.
  void finish_step(std::span<Sequence> sequences) {
    const std::vector<RowOutput> outputs = model_->finish_step();
    for (size_t i = 0; i < sequences.size(); ++i) {
      std::vector<int32_t>& ids = sequences[i].ids;
      *std::find(ids.begin(), ids.end(), kPendingToken) = outputs[i].token_id;
    }
  }

  std::span<Sequence> behind_their_prompts(int32_t count) {
    const std::span<Sequence> sequences(sequences_.data(), static_cast<size_t>(count));
    for (Sequence& s : sequences) {
      s.ids.resize(static_cast<size_t>(options_.context));
      s.computed = options_.context - 1;
      s.pending_row = -1;
    }
    return sequences;
  }

  // Prompts lower the clocks of what follows them for a while, and a device that has waited raises them slowly.
  void warm_up() {
    for (int round = 0; round < kWarmUpRounds; ++round) {
      const std::span<Sequence> sequences = behind_their_prompts(1);
      for (int i = 0; i < kWarmUpSteps; ++i) {
        begin_step(sequences, 0);
        finish_step(sequences);
      }
    }
  }

  // Computes the last positions of the sequences' prompts again, as decode rows or as prompts are.
  void again(int32_t count, int32_t positions) {
    if (count * positions > options_.rows) return;
    std::vector<BatchRow> rows;
    for (const Sequence& s : behind_their_prompts(count)) {
      BatchRow row;
      row.start = options_.context - positions;
      row.token_ids = std::span<const int32_t>(s.ids).subspan(static_cast<size_t>(row.start));
      row.block_table = s.blocks;
      row.sample = true;
      rows.push_back(row);
    }
    for (const bool as_decode_rows : {true, false}) {
      for (BatchRow& row : rows) row.decode = as_decode_rows;
      std::vector<double> gpu_ms;
      model_->begin_step(rows);
      for (int i = 0; i < kWarmUpSteps + options_.steps; ++i) {
        model_->begin_step(rows);
        model_->finish_step();
        if (i >= kWarmUpSteps) gpu_ms.push_back(model_->step_times().ms);
      }
      model_->finish_step();
      fmt::print("{} sequences, {} positions of each, {:27}{:>9} {:9.3f}\n", count, positions,
                 as_decode_rows ? "as decode rows" : "as prompts are", "", percentile(gpu_ms, 0.5));
    }
  }

  void decode(int32_t count, int32_t adapters) {
    if (count > options_.rows) return;
    const CudaModel::LoraSteps before = model_->lora_steps();
    const std::span<Sequence> sequences = behind_their_prompts(count);
    std::vector<double> gpu_ms, idle_us;
    begin_step(sequences, adapters);
    const auto step = [&] {
      begin_step(sequences, adapters);
      finish_step(sequences);
    };
    for (int i = 0; i < kWarmUpSteps; ++i) step();
    if (times_) {
      finish_step(sequences);
      kernels::synchronize_device();
      times_->begin();
      begin_step(sequences, adapters);
      for (int i = 0; i < kWarmUpSteps; ++i) step();
      finish_step(sequences);
      kernels::synchronize_device();
      print_kernels(fmt::format("{} rows, {} adapters", count, adapters), kWarmUpSteps + 1);
      return;
    }
    const auto begin = std::chrono::steady_clock::now();
    for (int i = 0; i < options_.steps; ++i) {
      step();
      const StepTimes times = model_->step_times();
      gpu_ms.push_back(times.ms);
      idle_us.push_back(1e3 * times.idle_ms);
    }
    const double ms = 1e3 * seconds_since(begin) / options_.steps;
    finish_step(sequences);
    const double context = options_.context + kWarmUpSteps + options_.steps / 2;
    // The parts follow each other: products, by bytes or by operations, then attention, then adapters.
    const double products = std::max(step_bytes_ / read_, count * layer_flops_ * plan_.config().num_layers / flops_);
    const double floor_ms =
        1e3 * (products + (count * context * kv_bytes_ + std::min(adapters, count) * lora_bytes_) / read_);
    std::string name = fmt::format("{} rows", count);
    if (mixed_adapters_) {
      name += fmt::format(", another mix of {} adapters every step", adapters);
    } else if (adapters > 0) {
      name += fmt::format(", {} adapters of rank {}", adapters, kBenchLoraRank);
    }
    if (adapters > 0) name += model_->lora_steps().fused > before.fused ? ", in the products" : ", apart";
    if (draw_.name != nullptr) name += fmt::format(", {}", draw_.name);
    fmt::print("{:64} {:9.3f} {:9.3f} {:9.3f} {:5.0f}% {:9.0f} {:9.1f} {:9.1f}\n", name, ms, percentile(gpu_ms, 0.5),
               floor_ms, 100 * floor_ms / ms, 1e3 * count / ms, percentile(idle_us, 0.5), percentile(idle_us, 0.99));
    std::fflush(stdout);
  }

  Sequence new_prompt(int32_t tokens) {
    Sequence sequence;
    sequence.ids = random_ids(tokens);
    sequence.blocks.resize(static_cast<size_t>(tokens / kBlockSize));
    std::iota(sequence.blocks.begin(), sequence.blocks.end(), options_.rows * blocks_of_sequence_);
    return sequence;
  }

  // Steps of at most `budget` tokens: rows that go on, and as much as there is room for of prompts that arrive one after
  // the other, the next when the one before has been computed. 0: no prompts.
  void mixed(int32_t budget) {
    const int32_t count = std::min(options_.rows, kMixedRows);
    const std::span<Sequence> sequences = behind_their_prompts(count);
    const Sequence prompt = new_prompt(kLongestPrompt);
    int32_t done = 0;
    int64_t prompt_tokens = 0;
    const auto begin = [&] {
      if (budget <= count) return begin_step(sequences, 0);
      const int32_t size = std::min(budget - count, kLongestPrompt - done);
      BatchRow row;
      row.token_ids =
          std::span<const int32_t>(prompt.ids).subspan(static_cast<size_t>(done), static_cast<size_t>(size));
      row.prompt_size = kLongestPrompt;
      row.start = done;
      row.block_table = prompt.blocks;
      done = (done + size) % kLongestPrompt;
      row.sample = done == 0;
      prompt_tokens += size;
      begin_step(sequences, 0, &row);
    };
    begin();
    for (int i = 0; i < kWarmUpSteps; ++i) {
      begin();
      finish_step(sequences);
    }
    prompt_tokens = 0;
    const int steps = 3 * options_.steps;
    std::vector<double> gaps_ms;
    const auto start = std::chrono::steady_clock::now();
    for (int i = 0; i < steps; ++i) {
      const double before = seconds_since(start);
      begin();
      finish_step(sequences);
      gaps_ms.push_back(1e3 * (seconds_since(start) - before));
    }
    const double seconds = seconds_since(start);
    finish_step(sequences);
    const double median = percentile(gaps_ms, 0.5);
    const double p99 = percentile(gaps_ms, 0.99);
    const std::string name = budget == 0 ? fmt::format("{} rows, no prompts", count)
                                         : fmt::format("{} rows, prompts, {} tokens a step", count, budget);
    fmt::print("{:64} {:9.2f} {:9.2f} {:9.2f} {:9.0f} {:9.0f}\n", name, median, p99, p99 / median,
               count * steps / seconds, static_cast<double>(prompt_tokens) / seconds);
    std::fflush(stdout);
  }

  void prompt(int32_t tokens, int32_t slot) {
    const ModelConfig& config = plan_.config();
    const Sequence sequence = new_prompt(tokens);
    const auto once = [&] {
      BatchRow row;
      row.token_ids = sequence.ids;
      row.prompt_size = tokens;
      row.block_table = sequence.blocks;
      row.slot = slot;
      row.sample = true;
      model_->begin_step({&row, 1});
      model_->finish_step();
      return model_->step_times().ms;
    };
    once();
    const std::string name = fmt::format("prompt of {} tokens{}", tokens, slot < 0 ? "" : ", with an adapter");
    if (times_) {
      kernels::synchronize_device();
      times_->begin();
      once();
      kernels::synchronize_device();
      print_kernels(name, 1);
      return;
    }
    std::vector<double> ms, host_ms;
    for (int i = 0; i < 7; ++i) {
      const auto begin = std::chrono::steady_clock::now();
      ms.push_back(once());
      host_ms.push_back(1e3 * seconds_since(begin));
    }
    const double products = std::max(step_bytes_ / read_ * flops_, layer_flops_ * tokens * config.num_layers);
    const double attention =
        2.0 * tokens * tokens * config.num_heads * config.head_dim * config.num_layers / options_.ranks;
    const double floor_ms = 1e3 * (products + attention) / flops_;
    const double median = percentile(ms, 0.5);
    fmt::print("{:64} {:9.2f} {:9.2f} {:9.2f} {:5.0f}% {:9.0f}\n", name, percentile(host_ms, 0.5), median, floor_ms,
               100 * floor_ms / median, 1e3 * tokens / median);
    std::fflush(stdout);
  }

  void print_kernels(const std::string& name, int steps) {
    fmt::print("{}, per step:\n{:36} {:>8} {:>10} {:>10} {:>10}\n", name, "kernel", "count", "us each", "us in all",
               "added us");
    double added = 0;
    for (const bench::KernelTime& time : times_->end()) {
      const auto count = static_cast<double>(time.count);
      fmt::print("{:36} {:8.1f} {:10.2f} {:10.1f} {:10.1f}\n", time.name, count / steps, time.us / count,
                 time.us / steps, time.added_us / steps);
      added += time.added_us / steps;
    }
    fmt::print("{:36} {:>8} {:>10} {:>10} {:10.1f}\n", "sum", "", "", "", added);
    std::fflush(stdout);
  }

  const Options options_;
  const int rank_;
  comm::Rendezvous& store_;
  const ShardPlan plan_;
  bool shares_device_ = false;
  std::unique_ptr<bench::KernelTimes> times_;
  std::unique_ptr<CudaModel> model_;
  Numbers numbers_;
  double read_ = 0, flops_ = 0;                                              // a second
  double step_bytes_ = 0, kv_bytes_ = 0, lora_bytes_ = 0, layer_flops_ = 0;  // of weights, a token, an adapter, a token
  int32_t blocks_of_sequence_ = 0;
  std::vector<Sequence> sequences_;
  bool mixed_adapters_ = false;
  Draw draw_;
};

}  // namespace
}  // namespace lorikeet::model

int main(int argc, char** argv) {
  const auto options = lorikeet::bench::parse_step_bench_options(argc, argv);
  if (!options) return 2;
  const lorikeet::comm::TemporaryDirectory directory;
  return lorikeet::bench::run_ranks(options->ranks, [&](int rank) {
    lorikeet::comm::FileRendezvous store(directory.path());
    lorikeet::model::Bench(*options, rank, store).run();
  });
}
