#include "model/forward/decode_graphs.h"

#include <glog/logging.h>

#include <algorithm>

namespace lorikeet::model {

DecodeGraphs::DecodeGraphs(int32_t max_rows) {
  CHECK_GT(max_rows, 0);
  // Rows that fill up a class cost as much as others: finely graded where weights bound the time, an eighth or less
  // above.
  const auto step_after = [](int32_t rows) {
    return rows < 4 ? rows : rows < 8 ? 4 : rows < 64 ? 8 : rows < 256 ? 16 : 32;
  };
  for (int32_t rows = 1; rows < max_rows; rows += step_after(rows)) classes_.push_back(rows);
  classes_.push_back(max_rows);
}

int32_t DecodeGraphs::class_of(int32_t rows) const {
  const auto found = std::lower_bound(classes_.begin(), classes_.end(), rows);
  CHECK(found != classes_.end()) << rows << " rows";
  return *found;
}

Result<void> DecodeGraphs::capture(int32_t row_class, int32_t lora_rank, const kernels::Stream& stream,
                                   const std::function<void()>& work) {
  auto graph = kernels::Graph::capture(stream, work);
  if (!graph) return tl::unexpected(graph.error());
  graphs_[{row_class, lora_rank}] = *std::move(graph);
  ++captured_;
  return {};
}

const kernels::Graph* DecodeGraphs::find(int32_t row_class, int32_t lora_rank) const {
  const auto found = graphs_.find({row_class, lora_rank});
  return found == graphs_.end() ? nullptr : &found->second;
}

}  // namespace lorikeet::model
