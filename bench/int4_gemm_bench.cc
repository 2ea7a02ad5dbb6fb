// The CPU's int4 products: one row against the read bandwidth, many rows against OpenBLAS's float product.
// The two are measured in turn within each benchmark, because the machine is noisy.
#include <benchmark/benchmark.h>
#include <cblas.h>

#include <random>

#include "bench/cpu_floors.h"
#include "kernels/int4_gemm.h"

namespace lorikeet::bench {
namespace {

kernels::Int4Weight random_weight(int32_t n, int32_t k) {
  std::mt19937 random(1);
  kernels::Int4Weight w;
  w.n = n;
  w.k = w.x_size = k;
  w.q.resize(static_cast<size_t>(n) * static_cast<size_t>(k) / 2);
  for (uint8_t& byte : w.q) byte = static_cast<uint8_t>(random());
  for (int32_t at = 0; at <= k; at += 128) w.run_begin.push_back(at);
  w.scale.assign(static_cast<size_t>(w.runs()) * static_cast<size_t>(n), 0.01F);
  w.zero.assign(w.scale.size(), 8);
  return w;
}

std::vector<float> random_floats(size_t count) {
  std::mt19937 random(2);
  std::vector<float> values(count);
  for (float& value : values) value = static_cast<float>(random() % 2001) / 1000 - 1;
  return values;
}

// Arguments: N, K, threads. Weights are rotated over more than the caches hold.
void int4_gemv(benchmark::State& state) {
  const auto n = static_cast<int32_t>(state.range(0)), k = static_cast<int32_t>(state.range(1));
  const auto threads = static_cast<int>(state.range(2));
  kernels::ThreadPool pool(threads);
  const size_t bytes =
      static_cast<size_t>(n) * static_cast<size_t>(k) / 2 + static_cast<size_t>(n) * static_cast<size_t>(k) / 128 * 5;
  const std::vector<kernels::Int4Weight> weights((256ULL << 20) / bytes + 1, random_weight(n, k));
  const auto x = random_floats(static_cast<size_t>(k));
  std::vector<float> y(static_cast<size_t>(n));
  std::vector<double> shares;
  size_t next = 0;
  for (auto _ : state) {
    const double floor = static_cast<double>(bytes) / read_bandwidth(threads);
    const double taken = seconds_of([&] {
                           for (size_t i = 0; i < weights.size(); ++i)
                             kernels::int4_gemm_cpu(weights[next++ % weights.size()], x.data(), 1, y.data(), n, pool);
                         }) /
                         static_cast<double>(weights.size());
    shares.push_back(floor / taken);
    state.SetIterationTime(taken);
  }
  std::sort(shares.begin(), shares.end());
  state.counters["of_read_bandwidth"] = shares[shares.size() / 2];
  state.counters["GB/s"] = benchmark::Counter(
      static_cast<double>(bytes) * 1e-9 * static_cast<double>(state.iterations()), benchmark::Counter::kIsRate);
}
BENCHMARK(int4_gemv)
    ->ArgNames({"N", "K", "threads"})
    ->Args({5120, 5120, 1})
    ->Args({5120, 5120, 2})
    ->Args({13824, 5120, 2})
    ->Args({5120, 13824, 2})
    ->UseManualTime()
    ->Iterations(5)
    ->Unit(benchmark::kMillisecond);

// Arguments: M, N, K. Peer: cblas_sgemm of the same shape on float weights.
void int4_gemm(benchmark::State& state) {
  const auto m = static_cast<int32_t>(state.range(0)), n = static_cast<int32_t>(state.range(1)),
             k = static_cast<int32_t>(state.range(2));
  kernels::ThreadPool pool(2);
  openblas_set_num_threads(2);
  const auto weight = random_weight(n, k);
  const auto floats = random_floats(static_cast<size_t>(n) * static_cast<size_t>(k));
  const auto x = random_floats(static_cast<size_t>(m) * static_cast<size_t>(k));
  std::vector<float> y(static_cast<size_t>(m) * static_cast<size_t>(n));
  std::vector<double> ratios;
  for (auto _ : state) {
    const double peer = seconds_of([&] {
      cblas_sgemm(CblasRowMajor, CblasNoTrans, CblasTrans, m, n, k, 1, x.data(), k, floats.data(), k, 0, y.data(), n);
    });
    const double taken = seconds_of([&] { kernels::int4_gemm_cpu(weight, x.data(), m, y.data(), n, pool); });
    ratios.push_back(taken / peer);
    state.SetIterationTime(taken);
  }
  std::sort(ratios.begin(), ratios.end());
  state.counters["x_openblas_time"] = ratios[ratios.size() / 2];
  state.counters["GFLOP/s"] = benchmark::Counter(
      2e-9 * m * n * static_cast<double>(k) * static_cast<double>(state.iterations()), benchmark::Counter::kIsRate);
}
BENCHMARK(int4_gemm)
    ->ArgNames({"M", "N", "K"})
    ->Args({8, 5120, 5120})
    ->Args({64, 5120, 5120})
    ->Args({256, 5120, 5120})
    ->UseManualTime()
    ->Iterations(5)
    ->Unit(benchmark::kMillisecond);

}  // namespace
}  // namespace lorikeet::bench
