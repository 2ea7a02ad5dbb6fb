// Shows the texts of one or several answers while they stream.
#pragma once

#include <cstdio>
#include <string>
#include <vector>

#include "kernels/base/error.h"

namespace lorikeet::launcher {

// A single answer is printed as it comes. Several are printed in whole lines, each behind its answer's label, so that
// they stay readable while they interleave.
class StreamPrinter {
 public:
  StreamPrinter(std::FILE* out, std::vector<std::string> labels);

  // Errors, of both: the output cannot be written.
  Result<void> text(size_t answer, const std::string& piece);
  Result<void> end(size_t answer, const std::string& note);  // prints what is left, and a closing note

 private:
  static constexpr size_t kLineWidth = 80;

  Result<void> line(size_t answer, const std::string& text);

  std::FILE* out_;
  std::vector<std::string> labels_;
  std::vector<std::string> held_;  // per answer: text that does not fill a line yet
  size_t label_width_ = 0;
};

}  // namespace lorikeet::launcher
