#include <cstring>
#include <vector>

#include "kernels/gemm_rows.h"
#include "kernels/int4_gemm.h"

namespace lorikeet::kernels {
namespace {

// x in the order of the stored k: permuted where the weight's rows are sorted, zeros at its padding.
void take_inputs(const Int4Weight& weight, const float* x, float* out) {
  if (weight.permutation.empty()) {
    std::memcpy(out, x, static_cast<size_t>(weight.k) * sizeof(float));
    return;
  }
  for (int32_t k = 0; k < weight.k; ++k) {
    const int32_t from = weight.permutation[static_cast<size_t>(k)];
    out[k] = from < 0 ? 0.0F : x[from];
  }
}

void split_block(const float* in, float* out) {
  for (int i = 0; i < 16; ++i) {
    out[i] = in[2 * i];
    out[16 + i] = in[2 * i + 1];
  }
}

}  // namespace

const GemmRows* gemm_rows_of(CpuIsa isa) {
#if defined(__x86_64__)
  if (isa == CpuIsa::avx512) return gemm_rows_avx512();
  if (isa == CpuIsa::avx2) return gemm_rows_avx2();
#endif
  return nullptr;
}

void dequantize_row(const Int4Weight& weight, int32_t n, float* w) {
  const uint8_t* q = weight.q.data() + static_cast<int64_t>(n) * (weight.k / 2);
  for (int32_t run = 0; run < weight.runs(); ++run) {
    const auto at = static_cast<size_t>(static_cast<int64_t>(run) * weight.n + n);
    for (int32_t k = weight.run_begin[static_cast<size_t>(run)]; k < weight.run_begin[static_cast<size_t>(run) + 1];
         ++k) {
      const int value = k % 2 == 0 ? q[k / 2] & 15 : q[k / 2] >> 4;
      w[k] = weight.scale[at] * static_cast<float>(value - weight.zero[at]);
    }
  }
}

void int4_gemm_plain(const Int4Weight& weight, const float* x, int32_t m, float* y, int64_t y_stride) {
  std::vector<float> inputs(static_cast<size_t>(weight.k)), w(static_cast<size_t>(weight.k));
  for (int32_t j = 0; j < m; ++j) {
    take_inputs(weight, x + static_cast<int64_t>(j) * weight.x_size, inputs.data());
    for (int32_t n = 0; n < weight.n; ++n) {
      dequantize_row(weight, n, w.data());
      float sum = 0;
      for (int32_t k = 0; k < weight.k; ++k) sum += w[static_cast<size_t>(k)] * inputs[static_cast<size_t>(k)];
      y[j * y_stride + n] = sum;
    }
  }
}

void int4_gemm_cpu(const Int4Weight& weight, const float* x, int32_t m, float* y, int64_t y_stride, ThreadPool& pool) {
  const GemmRows* rows = gemm_rows_of(best_cpu_isa());
  if (rows == nullptr) return int4_gemm_plain(weight, x, m, y, y_stride);
  std::vector<float> inputs(static_cast<size_t>(weight.k));
  std::vector<float> split(static_cast<size_t>(m) * static_cast<size_t>(weight.k));
  for (int32_t j = 0; j < m; ++j) {
    take_inputs(weight, x + static_cast<int64_t>(j) * weight.x_size, inputs.data());
    float* to = split.data() + static_cast<int64_t>(j) * weight.k;
    for (int32_t k = 0; k < weight.k; k += 32) split_block(inputs.data() + k, to + k);
  }
  pool.parallel_for(weight.n, kGemmRowGrain,
                    [&](int64_t begin, int64_t end) { rows->int4(weight, split.data(), m, y, y_stride, begin, end); });
}

}  // namespace lorikeet::kernels
