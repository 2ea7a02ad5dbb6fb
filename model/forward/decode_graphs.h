// Captured decode steps, one per class of batch sizes and of the ranks of the step's adapters.
#pragma once

#include <cstdint>
#include <functional>
#include <map>
#include <utility>
#include <vector>

#include "kernels/base/device.h"

namespace lorikeet::model {

class DecodeGraphs {
 public:
  explicit DecodeGraphs(int32_t max_rows);

  // Ascending; the last is max_rows. A step takes the smallest class that holds its rows.
  const std::vector<int32_t>& classes() const { return classes_; }
  int32_t class_of(int32_t rows) const;  // rows in 1 .. max_rows

  // lora_rank: the rank up to which the step's adapters may go; 0: it has none.
  Result<void> capture(int32_t row_class, int32_t lora_rank, const kernels::Stream& stream,
                       const std::function<void()>& work);
  const kernels::Graph* find(int32_t row_class, int32_t lora_rank) const;  // null: not captured
  void clear() { graphs_.clear(); }
  int64_t captured() const { return captured_; }  // ever

 private:
  std::vector<int32_t> classes_;
  std::map<std::pair<int32_t, int32_t>, kernels::Graph> graphs_;
  int64_t captured_ = 0;
};

}  // namespace lorikeet::model
