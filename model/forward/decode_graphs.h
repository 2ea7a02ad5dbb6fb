// Captured decode steps, one per class of batch sizes, with and without adapters.
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

  Result<void> capture(int32_t row_class, bool adapters, const kernels::Stream& stream,
                       const std::function<void()>& work);
  const kernels::Graph* find(int32_t row_class, bool adapters) const;  // null: not captured
  void clear() { graphs_.clear(); }
  int64_t captured() const { return captured_; }  // ever

 private:
  std::vector<int32_t> classes_;
  std::map<std::pair<int32_t, bool>, kernels::Graph> graphs_;
  int64_t captured_ = 0;
};

}  // namespace lorikeet::model
