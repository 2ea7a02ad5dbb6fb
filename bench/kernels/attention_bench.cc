// The CPU's attention, heads of a Qwen2.5-14B (40 query heads, 8 KV heads of 128): decode rows against the read
// bandwidth, a prompt against OpenBLAS.
#include <benchmark/benchmark.h>
#include <cblas.h>

#include <numeric>

#include "bench/kernels/cpu_floors.h"
#include "kernels/attention/paged_attention.h"
#include "kernels/base/aligned_floats.h"

namespace lorikeet::bench {
namespace {

constexpr int32_t kHeads = 40, kKvHeads = 8, kHeadDim = 128, kBlockSize = 16;

// `sequences` of `length` positions, their blocks shuffled.
struct Cache {
  kernels::AlignedFloats keys, values;
  std::vector<std::vector<int32_t>> tables;
  kernels::KvCacheCpu view;

  Cache(int32_t sequences, int32_t length) {
    const int32_t blocks = (length + kBlockSize - 1) / kBlockSize;
    const auto floats = static_cast<size_t>(sequences) * static_cast<size_t>(blocks) * kKvHeads * kBlockSize * kHeadDim;
    keys = kernels::AlignedFloats(floats + kernels::KvCacheCpu::kPadding);
    values = kernels::AlignedFloats(floats);
    std::mt19937 random(1);
    for (size_t i = 0; i < floats; ++i) {
      keys.data()[i] = static_cast<float>(random() % 2001) / 1000 - 1;
      values.data()[i] = static_cast<float>(random() % 2001) / 1000 - 1;
    }
    std::vector<int32_t> order(static_cast<size_t>(sequences * blocks));
    std::iota(order.begin(), order.end(), 0);
    std::shuffle(order.begin(), order.end(), random);
    for (int32_t s = 0; s < sequences; ++s) {
      const auto begin = order.begin() + static_cast<std::ptrdiff_t>(s) * blocks;
      tables.emplace_back(begin, begin + blocks);
    }
    view = {keys.data(), values.data(), kKvHeads, kBlockSize, kHeadDim};
  }
};

// Arguments: sequences, length, threads.
void decode(benchmark::State& state) {
  const auto sequences = static_cast<int32_t>(state.range(0)), length = static_cast<int32_t>(state.range(1));
  const auto threads = static_cast<int>(state.range(2));
  kernels::ThreadPool pool(threads);
  const Cache cache(sequences, length);
  std::vector<kernels::AttentionToken> tokens;
  for (const auto& table : cache.tables) tokens.push_back({length - 1, table.data()});
  const auto q = random_floats(static_cast<size_t>(sequences) * kHeads * kHeadDim);
  std::vector<float> out(q.size());
  const size_t bytes = static_cast<size_t>(sequences) * static_cast<size_t>(length) * kKvHeads * kHeadDim * 8;
  Comparison comparison;
  for (auto _ : state) {
    const Seconds floor = read_time(bytes, threads);
    const Seconds taken = seconds_of([&] {
      kernels::paged_attention_cpu(cache.view, tokens.data(), sequences, q.data(), kHeads, out.data(), pool);
    });
    comparison.add(floor, taken);
    state.SetIterationTime(taken.wall);
  }
  comparison.report(state, "of_bandwidth");
}
BENCHMARK(decode)
    ->ArgNames({"sequences", "length", "threads"})
    ->Args({32, 512, 1})
    ->Args({32, 512, 2})
    ->Args({2, 8192, 2})
    ->UseManualTime()
    ->Iterations(9)
    ->Unit(benchmark::kMillisecond);

// A chunk of a prompt: `count` positions that end at `length`. Peer: a float product of as many multiplications.
void prefill(benchmark::State& state) {
  const auto count = static_cast<int32_t>(state.range(0)), length = static_cast<int32_t>(state.range(1));
  kernels::ThreadPool pool(1);
  openblas_set_num_threads(1);
  const Cache cache(1, length);
  std::vector<kernels::AttentionToken> tokens;
  double multiplications = 0;
  for (int32_t p = length - count; p < length; ++p) {
    tokens.push_back({p, cache.tables[0].data()});
    multiplications += 2.0 * (p + 1) * kHeads * kHeadDim;
  }
  const auto q = random_floats(static_cast<size_t>(count) * kHeads * kHeadDim);
  std::vector<float> out(q.size());
  constexpr int kSide = 1024;
  const auto a = random_floats(static_cast<size_t>(kSide) * kSide);
  std::vector<float> c(a.size());
  Comparison comparison;
  for (auto _ : state) {
    Seconds floor = seconds_of([&] {
      cblas_sgemm(CblasRowMajor, CblasNoTrans, CblasTrans, kSide, kSide, kSide, 1, a.data(), kSide, a.data(), kSide, 0,
                  c.data(), kSide);
    });
    const double share = multiplications / (static_cast<double>(kSide) * kSide * kSide);
    floor = {floor.wall * share, floor.cpu * share};
    const Seconds taken = seconds_of(
        [&] { kernels::paged_attention_cpu(cache.view, tokens.data(), count, q.data(), kHeads, out.data(), pool); });
    comparison.add(floor, taken);
    state.SetIterationTime(taken.wall);
  }
  comparison.report(state, "x_openblas");
}
BENCHMARK(prefill)
    ->ArgNames({"count", "length"})
    ->Args({512, 512})
    ->Args({256, 4096})
    ->UseManualTime()
    ->Iterations(5)
    ->Unit(benchmark::kMillisecond);

}  // namespace
}  // namespace lorikeet::bench
