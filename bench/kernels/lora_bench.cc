// What adapters cost on the CPU: one projection of a Qwen2.5-14B in int4 with LoRA over the rows of a batch, against
// the projection alone.
#include <benchmark/benchmark.h>

#include "bench/kernels/cpu_floors.h"
#include "bench/kernels/random_int4.h"
#include "kernels/int4/int4_gemm.h"
#include "kernels/lora/lora.h"

namespace lorikeet::bench {
namespace {

constexpr int32_t kInputs = 5120, kOutputs = 5120;

// Arguments: rows of the batch, adapters in it, rank.
void int4_with_lora(benchmark::State& state) {
  const auto rows = static_cast<int32_t>(state.range(0)), adapters = static_cast<int32_t>(state.range(1)),
             rank = static_cast<int32_t>(state.range(2));
  kernels::ThreadPool pool(1);
  // Several of each, in turn, as layers follow one another: nothing stays in the caches.
  constexpr int32_t kLayers = 6;
  const std::vector<kernels::Int4Weight> weights(kLayers, random_int4(kOutputs, kInputs));
  const size_t a_size = static_cast<size_t>(rank) * kInputs, b_size = static_cast<size_t>(rank) * kOutputs;
  const auto floats = random_floats((a_size + b_size) * static_cast<size_t>(adapters * kLayers));
  const auto x = random_floats(static_cast<size_t>(rows) * kInputs);
  std::vector<float> y(static_cast<size_t>(rows) * kOutputs);
  std::vector<std::vector<kernels::LoraGroup>> groups(kLayers);
  const float* next = floats.data();
  for (auto& layer : groups) {
    for (int32_t a = 0; a < adapters; ++a, next += a_size + b_size) {
      kernels::LoraGroup group{{next, next + a_size, nullptr, rank, kInputs, kOutputs, 0.5F}, {}};
      for (int32_t row = a; row < rows; row += adapters) group.rows.push_back(row);
      layer.push_back(std::move(group));
    }
  }
  Comparison comparison;
  for (auto _ : state) {
    const Seconds without = seconds_of([&] {
      for (const auto& weight : weights) kernels::int4_gemm_cpu(weight, x.data(), rows, y.data(), kOutputs, pool);
    });
    const Seconds with = seconds_of([&] {
      for (size_t layer = 0; layer < weights.size(); ++layer) {
        kernels::int4_gemm_cpu(weights[layer], x.data(), rows, y.data(), kOutputs, pool);
        kernels::lora_cpu(groups[layer], x.data(), kInputs, y.data(), kOutputs, pool);
      }
    });
    comparison.add(with, without);
    state.SetIterationTime(with.wall / kLayers);
  }
  comparison.report(state, "x_without");
}
BENCHMARK(int4_with_lora)
    ->ArgNames({"rows", "adapters", "rank"})
    ->Args({1, 1, 16})
    ->Args({8, 1, 16})
    ->Args({8, 8, 16})
    ->Args({32, 1, 16})
    ->Args({32, 8, 16})
    ->Args({32, 32, 16})
    ->Args({32, 32, 64})
    ->UseManualTime()
    ->Iterations(7)
    ->Unit(benchmark::kMillisecond);

}  // namespace
}  // namespace lorikeet::bench
