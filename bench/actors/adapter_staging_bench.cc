// The way of an adapter of rank 16 over a Qwen2.5-14B from the page cache to what its slots take, and its stages, in
// GB/s of the file and beside the time in which one thread reads as many bytes from memory. 12 of the 48 layers.
//
//   read   the file into memory, every tensor hashed (SHA-256) and looked at for what is not finite
//   pack   what was read, for one rank: 16-bit blocks of a CUDA device, float32 of the CPU
//   stage  both, into memory that is handed to the ranks, sealed: what the adapter cache does
#include <benchmark/benchmark.h>

#include <random>

#include "actors/head/staged_adapter.h"
#include "bench/kernels/cpu_floors.h"
#include "tests/model/adapter/synthetic_adapter.h"

namespace lorikeet::bench {
namespace {

constexpr int32_t kRank = 16;
constexpr int kLayers = 12;

model::ModelConfig config_of_14b() {
  model::ModelConfig config;
  config.hidden_size = 5120;
  config.num_layers = kLayers;
  config.num_heads = 40;
  config.num_kv_heads = 8;
  config.head_dim = 128;
  config.intermediate_size = 13824;
  config.vocab_size = 152064;
  return config;
}

class Files {
 public:
  Files() : config(config_of_14b()), plan(model::ShardPlan::make(config, 1).value()) {
    std::vector<std::string> targets;
    std::mt19937 random(3);
    const auto add = [&](const std::string& name, int64_t rows, int64_t columns) {
      std::vector<uint16_t> halves(static_cast<size_t>(rows * columns));
      for (uint16_t& half : halves) half = static_cast<uint16_t>((random() & 0x83ffU) | 0x1800U);
      bytes += 2 * halves.size();
      files_.tensors.add("base_model.model." + name, "F16", {rows, columns}, halves);
    };
    for (const model::Projection p : model::kProjections) {
      const std::string module(model::module_name_of(p));
      targets.push_back(module.substr(module.find('.') + 1));
      for (int layer = 0; layer < kLayers; ++layer) {
        const std::string name = "model.layers." + std::to_string(layer) + "." + module;
        add(name + ".lora_A.weight", kRank, model::input_size(config, p));
        add(name + ".lora_B.weight", model::output_size(config, p), kRank);
      }
    }
    files_.config = tests::plain_adapter_config(kRank, 16, targets);
    files_.write();
  }

  const std::filesystem::path& dir() const { return files_.dir(); }

  const model::ModelConfig config;
  const model::ShardPlan plan;
  uint64_t bytes = 0;

 private:
  tests::SyntheticAdapter files_;
};

const Files& files() {
  static const Files made;
  return made;
}

void report(benchmark::State& state, Comparison& comparison) {
  state.SetBytesProcessed(static_cast<int64_t>(files().bytes) * state.iterations());
  comparison.report(state, "x_memory");
}

// Arguments: threads.
void read(benchmark::State& state) {
  Comparison comparison;
  for (auto _ : state) {
    const Seconds taken = seconds_of([&] {
      auto adapter = model::read_adapter(files().dir(), files().config, {kRank, {}, static_cast<int>(state.range(0))});
      if (!adapter) state.SkipWithError(adapter.error().message.c_str());
    });
    comparison.add(read_time(files().bytes, 1), taken);
    state.SetIterationTime(taken.wall);
  }
  report(state, comparison);
}
BENCHMARK(read)->ArgName("threads")->Arg(1)->Arg(2)->Arg(4)->Arg(8)->UseManualTime()->Unit(benchmark::kMillisecond);

// Arguments: layout (model::SliceLayout), threads.
void pack(benchmark::State& state) {
  const auto adapter = model::read_adapter(files().dir(), files().config, {kRank, {}, 1}).value();
  const std::vector<model::AdapterSlice> slices = {
      model::plan_slice(adapter, files().plan, 0, static_cast<model::SliceLayout>(state.range(0)))};
  std::vector<uint8_t> memory(slices[0].bytes);
  uint8_t* const to = memory.data();
  Comparison comparison;
  for (auto _ : state) {
    const Seconds taken = seconds_of([&] {
      const auto ok = model::write_slices(adapter, files().plan, slices, {&to, 1}, static_cast<int>(state.range(1)));
      if (!ok) state.SkipWithError(ok.error().message.c_str());
    });
    comparison.add(read_time(files().bytes, 1), taken);
    state.SetIterationTime(taken.wall);
  }
  report(state, comparison);
}
BENCHMARK(pack)
    ->ArgNames({"layout", "threads"})
    ->ArgsProduct({{1, 2, 3}, {1, 2, 8}})
    ->UseManualTime()
    ->Unit(benchmark::kMillisecond);

// The same arguments.
void stage(benchmark::State& state) {
  Comparison comparison;
  for (auto _ : state) {
    std::shared_ptr<const actors::StagedAdapter> staged;
    const Seconds taken = seconds_of([&] {
      auto made = actors::stage_adapter(
          files().dir(), files().plan, kRank, {},
          {static_cast<model::SliceLayout>(state.range(0)), static_cast<int>(state.range(1)), true});
      if (made) {
        staged = *made;
      } else {
        state.SkipWithError(made.error().message.c_str());
      }
    });
    comparison.add(read_time(files().bytes, 1), taken);
    state.SetIterationTime(taken.wall);
  }
  report(state, comparison);
}
BENCHMARK(stage)
    ->ArgNames({"layout", "threads"})
    ->ArgsProduct({{1, 2}, {1, 2, 8}})
    ->UseManualTime()
    ->Unit(benchmark::kMillisecond);

}  // namespace
}  // namespace lorikeet::bench
