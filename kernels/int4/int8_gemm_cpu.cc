#include <vector>

#include "kernels/int4/int8_gemm.h"
#include "kernels/int4/int8_inputs.h"
#include "kernels/int4/run_products.h"

namespace lorikeet::kernels {
namespace {

int nibble_of(const uint8_t* q, int32_t k) {
  return k % 2 == 0 ? q[k / 2] & 15 : q[k / 2] >> 4;
}

}  // namespace

void int8_gemm_plain(const Int4View& weight, const float* x, int32_t m, float* y, int64_t y_stride) {
  std::vector<float> inputs(static_cast<size_t>(weight.k)), scales(static_cast<size_t>(weight.k / kInt8Group));
  std::vector<int8_t> rounded(static_cast<size_t>(weight.k));
  for (int32_t j = 0; j < m; ++j) {
    const float* row = x + static_cast<int64_t>(j) * weight.x_size;
    if (!weight.permutation.empty()) {
      take_inputs(weight, row, inputs.data());
      row = inputs.data();
    }
    for (int32_t g = 0; g < weight.k / kInt8Group; ++g) {
      scales[static_cast<size_t>(g)] = round_to_int8(row + g * kInt8Group, rounded.data() + g * kInt8Group);
    }
    for (int32_t n = 0; n < weight.n; ++n) {
      const uint8_t* q = weight.q.data() + static_cast<int64_t>(n) * (weight.k / 2);
      float sum = 0;
      for (int32_t run = 0; run < weight.runs(); ++run) {
        const auto at = static_cast<size_t>(static_cast<int64_t>(run) * weight.n + n);
        float part = 0;
        const auto r = static_cast<size_t>(run);
        for (int32_t k = weight.run_begin[r]; k < weight.run_begin[r + 1]; k += kInt8Group) {
          int32_t products = 0;
          for (int32_t i = k; i < k + kInt8Group; ++i) {
            products += (nibble_of(q, i) - weight.zero[at]) * rounded[static_cast<size_t>(i)];
          }
          part += scales[static_cast<size_t>(k / kInt8Group)] * static_cast<float>(products);
        }
        sum += weight.scale[at] * part;
      }
      y[j * y_stride + n] = sum;
    }
  }
}

void int8_gemm_cpu(std::span<const Int4Product> products, const float* x, int32_t m, ThreadPool& pool, IntegerDot dot) {
  Int8ProductLoop* const loop = int8_product_loop(dot);
  if (loop == nullptr) {
    for (const Int4Product& p : products) int8_gemm_plain(p.weight, x, m, p.y, p.y_stride);
    return;
  }
  run_products(products, x, m, pool, Int8Inputs::row_size, Int8Inputs::prepare, loop);
}

Int8ProductLoop* int8_product_loop(IntegerDot dot) {
#if defined(__x86_64__)
  switch (dot) {
    case IntegerDot::avx2:
      return int8_product_for<IntegerDot::avx2>();
    case IntegerDot::avx_vnni:
      return int8_product_for<IntegerDot::avx_vnni>();
    case IntegerDot::avx512_vnni:
      return int8_product_for<IntegerDot::avx512_vnni>();
    default:
      return nullptr;
  }
#elif defined(__aarch64__)
  if (dot == IntegerDot::neon) return int8_product_for<IntegerDot::neon>();
  if (dot == IntegerDot::neon_dotprod) return int8_product_for<IntegerDot::neon_dotprod>();
  return nullptr;
#else
  (void)dot;
  return nullptr;
#endif
}

}  // namespace lorikeet::kernels
