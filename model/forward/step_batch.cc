#include "model/forward/step_batch.h"

#include <algorithm>
#include <numeric>

#include "kernels/attention/attention_decode_cuda.h"
#include "kernels/attention/attention_prefill_cuda.h"
#include "kernels/sampling/sampling.h"

namespace lorikeet::model {

static_assert(kMostDecodePositions <= kernels::kMostDecodeRun);

bool is_filtered(const BatchRow& row) {
  const RowSampling& s = row.sampling;
  return row.sample && kernels::DrawParameters{s.temperature, s.top_p, s.top_k, s.min_p, s.seed, 0}.filtered();
}

StepBatch::StepBatch(std::span<const BatchRow> given, int32_t most_decode_rows)
    : rows(given), order(given.size()), first_tokens(given.size()) {
  std::iota(order.begin(), order.end(), 0);
  for (const BatchRow& row : rows) decode_rows += row.token_ids.size() == 1 ? 1 : 0;
  enum Place { run, single, filtered, prompt };
  std::vector<Place> places;
  places.reserve(rows.size());
  for (const BatchRow& row : rows) {
    const auto size = static_cast<int32_t>(row.token_ids.size());
    if (size == 1) {
      places.push_back(is_filtered(row) ? filtered : single);
    } else if (row.decode && size <= kMostDecodePositions && size <= most_decode_rows - decode_rows) {
      places.push_back(run);
      decode_rows += size;
    } else {
      places.push_back(prompt);
    }
    decoding += places.back() == prompt ? 0 : 1;
  }
  std::stable_sort(order.begin(), order.end(), [&](int32_t a, int32_t b) {
    return places[static_cast<size_t>(a)] < places[static_cast<size_t>(b)];
  });
  for (const int32_t i : order) {
    const BatchRow& row = rows[static_cast<size_t>(i)];
    const auto size = static_cast<int32_t>(row.token_ids.size());
    first_tokens[static_cast<size_t>(i)] = tokens;
    tokens += size;
    adapters |= row.slot >= 0;
    if (places[static_cast<size_t>(i)] == prompt) {
      query_tiles += (size + kernels::kPrefillQueryTile - 1) / kernels::kPrefillQueryTile;
    }
  }
}

}  // namespace lorikeet::model
