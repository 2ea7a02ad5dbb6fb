#include "model/forward/step_batch.h"

#include <algorithm>
#include <numeric>

#include "kernels/attention/attention_prefill_cuda.h"
#include "kernels/sampling/sampling.h"

namespace lorikeet::model {

bool is_filtered(const BatchRow& row) {
  const RowSampling& s = row.sampling;
  return row.sample && kernels::DrawParameters{s.temperature, s.top_p, s.top_k, s.min_p, s.seed, 0}.filtered();
}

StepBatch::StepBatch(std::span<const BatchRow> given) : rows(given), order(given.size()), first_tokens(given.size()) {
  std::iota(order.begin(), order.end(), 0);
  const auto place = [this](int32_t i) {
    const BatchRow& row = rows[static_cast<size_t>(i)];
    return row.token_ids.size() > 1 ? 2 : is_filtered(row) ? 1 : 0;
  };
  std::stable_sort(order.begin(), order.end(), [&](int32_t a, int32_t b) { return place(a) < place(b); });
  for (const int32_t i : order) {
    const BatchRow& row = rows[static_cast<size_t>(i)];
    const auto size = static_cast<int32_t>(row.token_ids.size());
    first_tokens[static_cast<size_t>(i)] = tokens;
    tokens += size;
    adapters |= row.slot >= 0;
    if (size > 1) {
      query_tiles += (size + kernels::kPrefillQueryTile - 1) / kernels::kPrefillQueryTile;
    } else {
      ++decode_rows;
    }
  }
}

}  // namespace lorikeet::model
