// The output of an interrupted `batch` over the same input, which --resume continues.
#pragma once

#include <cstdint>
#include <memory>
#include <string>
#include <unordered_map>

#include "kernels/base/error.h"
#include "launcher/batch_line.h"

namespace lorikeet::launcher {

// What an output file has answered, by the ids as the lines give them (7 and "7" differ), and by line numbers for lines
// that hold no request.
class AnsweredLines {
 public:
  // Reads `path` (absent: nothing is answered). Removes from the file what is no answer: an incomplete last line, and failures
  // that were the server's and not the request's. The file is changed in one step.
  static Result<AnsweredLines> take_over(const std::string& path);

  // Whether the input's line `number` (from 1) has its answer. Where several lines have the same id, each answer counts for
  // one of them.
  bool take(const Result<std::unique_ptr<BatchLine>>& line, int64_t number);

  int64_t size() const { return size_; }

 private:
  std::unordered_map<std::string, int64_t> by_key_;  // how many
  std::unordered_map<int64_t, int64_t> by_line_;
  int64_t size_ = 0;
};

}  // namespace lorikeet::launcher
