// Shows the texts of one or several answers while they stream.
#pragma once

#include <cstdio>
#include <string>
#include <vector>

#include "comm/client/client_messages.h"
#include "kernels/base/error.h"
#include "launcher/terminal.h"

namespace lorikeet::launcher {

// A single answer is printed as it comes. Several are printed in whole lines, each behind its answer's label, so that
// they stay readable while they interleave. Log-probabilities follow an answer's text.
class StreamPrinter {
 public:
  struct Style {
    Terminal terminal;  // its width and colours; without a terminal, lines have 80 columns behind the label
    bool notes = true;  // print a closing note behind complete answers
  };

  StreamPrinter(std::FILE* out, std::vector<std::string> labels) : StreamPrinter(out, std::move(labels), Style{}) {}
  StreamPrinter(std::FILE* out, std::vector<std::string> labels, Style style);

  // Errors, of all: the output cannot be written.
  Result<void> text(size_t answer, const std::string& piece);
  Result<void> delta(size_t answer, const comm::Delta& delta);  // its text, and what it has of log-probabilities
  Result<void> end(size_t answer, const std::string& note);     // prints what is left, and a closing note
  // Prints what is left, and to standard error why the answer failed, behind `command`.
  Result<void> fail(size_t answer, const std::string& command, const std::string& why);
  // Prints a remark on an answer that has ended, likewise.
  void remark(size_t answer, const std::string& command, const std::string& what) const;

 private:
  static constexpr size_t kLineWidth = 80;
  static constexpr size_t kLeastLineWidth = 24;

  Result<void> line(size_t answer, const std::string& text);
  Result<void> close(size_t answer);
  size_t line_width() const;

  std::FILE* out_;
  std::vector<std::string> labels_;
  Style style_;
  std::vector<std::string> held_;                   // per answer: text that does not fill a line yet
  std::vector<std::vector<std::string>> logprobs_;  // per answer: a line per token
  size_t label_width_ = 0;
  bool in_line_ = false;  // of a single answer: its text does not end with a line's end
};

}  // namespace lorikeet::launcher
