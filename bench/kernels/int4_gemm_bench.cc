// The CPU's matrix products: one row against the read bandwidth, many rows against OpenBLAS's float product.
#include <benchmark/benchmark.h>
#include <cblas.h>

#include "bench/kernels/cpu_floors.h"
#include "bench/kernels/random_int4.h"
#include "kernels/dense/dense_gemm.h"
#include "kernels/int4/int4_gemm.h"

namespace lorikeet::bench {
namespace {

// The instruction set that an argument asks for (1: AVX2, 2: AVX-512, 3: NEON); says so where this machine lacks it.
bool takes_isa(benchmark::State& state, int64_t argument, kernels::CpuIsa& isa) {
  isa = static_cast<kernels::CpuIsa>(argument);
  state.SetLabel(std::string(name_of(isa)));
  if (has_cpu_isa(isa)) return true;
  state.SkipWithError("this machine lacks it");
  return false;
}

// Arguments: N, K, threads, instruction set. Weights are rotated over far more than the caches hold.
void int4_gemv(benchmark::State& state) {
  const auto n = static_cast<int32_t>(state.range(0)), k = static_cast<int32_t>(state.range(1));
  const auto threads = static_cast<int>(state.range(2));
  kernels::CpuIsa isa{};
  if (!takes_isa(state, state.range(3), isa)) return;
  kernels::ThreadPool pool(threads);
  const kernels::Int4Weight first = random_int4(n, k);
  const std::vector<kernels::Int4Weight> weights((160ULL << 20) / bytes_of(first) + 1, first);
  const size_t bytes = bytes_of(first) * weights.size();
  const auto x = random_floats(static_cast<size_t>(k));
  std::vector<float> y(static_cast<size_t>(n));
  Comparison comparison;
  for (auto _ : state) {
    const Seconds floor = read_time(bytes, threads);
    const Seconds taken = seconds_of([&] {
      for (const auto& weight : weights) kernels::int4_gemm_cpu(weight, x.data(), 1, y.data(), n, pool, isa);
    });
    comparison.add(floor, taken);
    state.SetIterationTime(taken.wall / static_cast<double>(weights.size()));
    state.counters["read_GB/s"] = static_cast<double>(bytes) / floor.wall * 1e-9;
  }
  comparison.report(state, "of_bandwidth");
}
BENCHMARK(int4_gemv)
    ->ArgNames({"N", "K", "threads", "isa"})
    ->ArgsProduct({{1536, 5120}, {5120}, {1}, {1, 2, 3}})
    ->ArgsProduct({{5120, 13824}, {5120}, {2}, {1, 2, 3}})
    ->ArgsProduct({{5120}, {13824}, {2}, {1, 2, 3}})
    ->UseManualTime()
    ->Iterations(7)
    ->Unit(benchmark::kMillisecond);

// lm_head of a 14B, a part of its rows, in fp16. Arguments: N, K, threads.
void dense_gemv(benchmark::State& state) {
  const auto n = static_cast<int32_t>(state.range(0)), k = static_cast<int32_t>(state.range(1));
  const auto threads = static_cast<int>(state.range(2));
  kernels::ThreadPool pool(threads);
  std::mt19937 random(3);
  std::vector<uint16_t> halves(static_cast<size_t>(n) * static_cast<size_t>(k));
  for (uint16_t& half : halves) half = static_cast<uint16_t>(0x2c00 + random() % 0x800);
  kernels::DenseWeight weight;
  weight.n = n;
  weight.k = k;
  weight.dtype = kernels::Dtype::f16;
  weight.data = halves.data();
  const auto x = random_floats(static_cast<size_t>(k));
  std::vector<float> y(static_cast<size_t>(n));
  Comparison comparison;
  for (auto _ : state) {
    const Seconds floor = read_time(halves.size() * 2, threads);
    const Seconds taken = seconds_of([&] { kernels::dense_gemm_cpu(weight, x.data(), k, 1, y.data(), n, pool); });
    comparison.add(floor, taken);
    state.SetIterationTime(taken.wall);
  }
  comparison.report(state, "of_bandwidth");
}
BENCHMARK(dense_gemv)
    ->ArgNames({"N", "K", "threads"})
    ->Args({19008, 5120, 1})
    ->Args({19008, 5120, 2})
    ->UseManualTime()
    ->Iterations(7)
    ->Unit(benchmark::kMillisecond);

// Arguments: M, N, K, threads, instruction set. Peer: cblas_sgemm of the same shape on float weights.
void int4_gemm(benchmark::State& state) {
  const auto m = static_cast<int32_t>(state.range(0)), n = static_cast<int32_t>(state.range(1)),
             k = static_cast<int32_t>(state.range(2));
  const auto threads = static_cast<int>(state.range(3));
  kernels::CpuIsa isa{};
  if (!takes_isa(state, state.range(4), isa)) return;
  kernels::ThreadPool pool(threads);
  openblas_set_num_threads(threads);
  const auto weight = random_int4(n, k);
  const auto floats = random_floats(static_cast<size_t>(n) * static_cast<size_t>(k));
  const auto x = random_floats(static_cast<size_t>(m) * static_cast<size_t>(k));
  std::vector<float> y(static_cast<size_t>(m) * static_cast<size_t>(n));
  Comparison comparison;
  for (auto _ : state) {
    const Seconds peer = seconds_of([&] {
      cblas_sgemm(CblasRowMajor, CblasNoTrans, CblasTrans, m, n, k, 1, x.data(), k, floats.data(), k, 0, y.data(), n);
    });
    const Seconds taken = seconds_of([&] { kernels::int4_gemm_cpu(weight, x.data(), m, y.data(), n, pool, isa); });
    comparison.add(peer, taken);
    state.SetIterationTime(taken.wall);
    state.counters["cpu_GFLOP/s"] = 2e-9 * m * n * static_cast<double>(k) / taken.cpu;
  }
  comparison.report(state, "x_openblas");
}
BENCHMARK(int4_gemm)
    ->ArgNames({"M", "N", "K", "threads", "isa"})
    ->ArgsProduct({{2, 4, 8, 16, 64, 256}, {5120}, {5120}, {1}, {1, 2, 3}})
    ->ArgsProduct({{256}, {5120}, {5120}, {2}, {1, 2, 3}})
    ->UseManualTime()
    ->Iterations(5)
    ->Unit(benchmark::kMillisecond);

}  // namespace
}  // namespace lorikeet::bench
