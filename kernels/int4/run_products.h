// How several int4 products of the same x run on the CPU, whatever form their loop wants of it. For the *_cpu.cc files of
// this room.
#pragma once

#include <algorithm>
#include <deque>
#include <span>
#include <vector>

#include "kernels/cpu/product_cpu.h"
#include "kernels/int4/int4_gemm.h"

namespace lorikeet::kernels {

// x in the order of the stored k: permuted where the weight's rows are sorted, zeros at its padding.
inline void take_inputs(const Int4View& weight, const float* x, float* out) {
  for (int32_t k = 0; k < weight.k; ++k) {
    const int32_t from = weight.permutation[static_cast<size_t>(k)];
    out[k] = from < 0 ? 0.0F : x[from];
  }
}

// Whether a prepared x of one weight is that of the other.
inline bool take_alike(const Int4View& a, const Int4View& b) {
  return a.k == b.k && a.x_size == b.x_size && std::ranges::equal(a.run_begin, b.run_begin) &&
         std::ranges::equal(a.permutation, b.permutation);
}

// row_size(weight): floats of a prepared row. prepare(weight, x, row): makes one of weight.k inputs in the order of the
// stored k. loop(weight, rows, begin, end): outputs [begin, end).
template <class RowSize, class Prepare, class Loop>
void run_products(std::span<const Int4Product> products, const float* x, int32_t m, ThreadPool& pool,
                  const RowSize& row_size, const Prepare& prepare, const Loop& loop) {
  std::deque<ProductInputs> inputs;  // of which neighbours share one
  struct Part {
    const Int4View* weight;
    ProductRows rows;
    int64_t first;  // of its outputs among all, on a multiple of the grain
  };
  std::vector<Part> parts;
  int64_t outputs = 0;
  for (const Int4Product& product : products) {
    const Int4View& weight = product.weight;
    if (parts.empty() || !take_alike(*parts.back().weight, weight)) {
      ProductInputs& prepared = inputs.emplace_back(m, row_size(weight));
      pool.parallel_for(m, 8, [&](int64_t begin, int64_t end) {
        std::vector<float> taken(weight.permutation.empty() ? 0 : static_cast<size_t>(weight.k));
        for (auto j = static_cast<int32_t>(begin); j < end; ++j) {
          const float* row = x + static_cast<int64_t>(j) * weight.x_size;
          if (!weight.permutation.empty()) {
            take_inputs(weight, row, taken.data());
            row = taken.data();
          }
          prepare(weight, row, prepared.row(j));
        }
      });
    }
    parts.push_back({&weight, {inputs.back().data(), inputs.back().stride(), m, product.y, product.y_stride}, outputs});
    outputs += (weight.n + kProductGrain - 1) / kProductGrain * kProductGrain;
  }
  if (parts.empty()) return;
  share_out_product(outputs, parts.front().weight->k, m, pool, [&](int64_t begin, int64_t end) {
    for (const Part& part : parts) {
      const int64_t from = std::max<int64_t>(begin - part.first, 0);
      const int64_t to = std::min<int64_t>(end - part.first, part.weight->n);
      if (from < to) loop(*part.weight, part.rows, from, to);
    }
  });
}

}  // namespace lorikeet::kernels
