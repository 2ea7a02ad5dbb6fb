// The output of an earlier `batch` over the same input, of which a new run does the rest.
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
  // Reads `path` (absent: nothing is answered). What is no answer is taken out of the file: a last line that was not
  // written whole, and failures that were the server's and not the request's. The file is changed in one step.
  static Result<AnsweredLines> take_over(const std::string& path);

  // Whether the input's line `number` (from 1) has its answer. Of lines with one id, each answer counts for one.
  bool take(const Result<std::unique_ptr<BatchLine>>& line, int64_t number);

  int64_t size() const { return size_; }

 private:
  std::unordered_map<std::string, int64_t> by_key_;  // how many
  std::unordered_map<int64_t, int64_t> by_line_;
  int64_t size_ = 0;
};

}  // namespace lorikeet::launcher
