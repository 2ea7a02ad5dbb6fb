#include <algorithm>
#include <cstring>

#include "kernels/cpu/product_cpu.h"
#include "kernels/dense/dense_product_simd.h"
#include "kernels/lora/lora.h"
#include "kernels/lora/low_rank_update_simd.h"

namespace lorikeet::kernels {
namespace {

DenseWeight as_weight(const LoraWeights& w) {
  DenseWeight weight;
  weight.n = w.rank;
  weight.k = w.inputs;
  weight.dtype = Dtype::f32;
  weight.data = w.a;
  return weight;
}

// A group, and what A makes of its rows.
struct GroupState {
  const LoraGroup* group;
  ProductInputs inputs;     // x of its rows
  std::vector<float> low;   // [rows, rank]
  std::vector<float*> out;  // [rows]: rows of y

  GroupState(const LoraGroup& g, const float* x, int64_t x_stride, float* y, int64_t y_stride)
      : group(&g),
        inputs(static_cast<int32_t>(g.rows.size()), g.weights.inputs),
        low(g.rows.size() * static_cast<size_t>(g.weights.rank)) {
    for (size_t i = 0; i < g.rows.size(); ++i) {
      std::memcpy(inputs.row(static_cast<int32_t>(i)), x + g.rows[i] * x_stride,
                  static_cast<size_t>(g.weights.inputs) * sizeof(float));
      out.push_back(y + g.rows[i] * y_stride);
    }
  }
};

// Some of the rows of A of one group.
struct ShrinkPart {
  GroupState* state;
  int32_t begin, end;
};
constexpr int32_t kShrinkRows = 8;

// Floats of B, or of A, that are worth waking a thread for.
constexpr int64_t kPartFloats = 1 << 16;

}  // namespace

void lora_plain(const std::vector<LoraGroup>& groups, const float* x, int64_t x_stride, float* y, int64_t y_stride) {
  for (const LoraGroup& group : groups) {
    const LoraWeights& w = group.weights;
    std::vector<float> low(static_cast<size_t>(w.rank));
    for (const int32_t row : group.rows) {
      for (int32_t r = 0; r < w.rank; ++r) {
        float sum = 0;
        for (int32_t k = 0; k < w.inputs; ++k)
          sum += w.a[static_cast<int64_t>(r) * w.inputs + k] * x[row * x_stride + k];
        low[static_cast<size_t>(r)] = sum;
      }
      for (int32_t n = 0; n < w.outputs; ++n) {
        float sum = 0;
        for (int32_t r = 0; r < w.rank; ++r)
          sum += low[static_cast<size_t>(r)] * w.b[static_cast<int64_t>(r) * w.outputs + n];
        float& out = y[row * y_stride + n];
        out += w.scale * sum;
        if (w.dora_factor != nullptr) out *= w.dora_factor[n];
      }
    }
  }
}

void lora_cpu(const std::vector<LoraGroup>& groups, const float* x, int64_t x_stride, float* y, int64_t y_stride,
              ThreadPool& pool) {
  if (groups.empty()) return;
  static DenseProductLoop* const product = dense_product_loop(best_cpu_isa());
  static LowRankUpdateLoop* const update = low_rank_update_loop(best_cpu_isa());
  if (product == nullptr) return lora_plain(groups, x, x_stride, y, y_stride);
  std::vector<GroupState> states;
  states.reserve(groups.size());
  std::vector<ShrinkPart> parts;
  int64_t a_floats = 0, b_floats = 0;  // that are read, counting those of several rows several times
  for (const LoraGroup& group : groups) {
    GroupState& state = states.emplace_back(group, x, x_stride, y, y_stride);
    const LoraWeights& w = group.weights;
    for (int32_t r = 0; r < w.rank; r += kShrinkRows) parts.push_back({&state, r, std::min(w.rank, r + kShrinkRows)});
    const auto row_ranks = static_cast<int64_t>(group.rows.size()) * w.rank;
    a_floats += row_ranks * w.inputs;
    b_floats += row_ranks * w.outputs;
  }

  const auto count = static_cast<int64_t>(parts.size());
  pool.parallel_for(count, 1 + kPartFloats * count / (a_floats + 1), [&](int64_t begin, int64_t end) {
    for (int64_t i = begin; i < end; ++i) {
      const ShrinkPart& part = parts[static_cast<size_t>(i)];
      const LoraWeights& w = part.state->group->weights;
      const ProductRows rows = {part.state->inputs.data(), part.state->inputs.stride(),
                                static_cast<int32_t>(part.state->out.size()), part.state->low.data(), w.rank};
      product(as_weight(w), rows, part.begin, part.end);
    }
  });

  const int64_t outputs = groups.front().weights.outputs;
  const int64_t grain = 64 * (1 + kPartFloats * outputs / (b_floats + 1) / 64);
  pool.parallel_for(outputs, grain, [&](int64_t begin, int64_t end) {
    for (const GroupState& state : states) {
      const LoraWeights& w = state.group->weights;
      update(state.low.data(), w.rank, w.b, w.outputs, w.scale, w.dora_factor, state.out.data(),
             static_cast<int32_t>(state.out.size()), begin, end);
    }
  });
}

LowRankUpdateLoop* low_rank_update_loop(CpuIsa isa) {
  return loop_for<LowRankUpdateLoop>(isa, [](auto set) { return low_rank_update_for<set()>(); });
}

}  // namespace lorikeet::kernels
