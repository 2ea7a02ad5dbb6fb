// Files of one JSON value per line.
#pragma once

#include <cstdio>
#include <fstream>
#include <functional>
#include <memory>
#include <optional>
#include <string>

#include "comm/client/limits.h"
#include "kernels/base/error.h"

namespace lorikeet::launcher {

// Reads lines of at most kMaxLine bytes; "-" is the standard input. Empty lines are skipped, but counted.
class LineReader {
 public:
  static constexpr size_t kMaxLine = comm::kMaxBodyBytes;

  static Result<LineReader> open(const std::string& path);

  // The next line without its end; nullopt at the end of the file. A line over kMaxLine comes cut to kMaxLine + 1
  // bytes.
  std::optional<std::string> next();
  int64_t line_number() const { return number_; }  // of the line that next() gave, from 1
  bool failed() const;                             // the file could not be read to its end

 private:
  std::unique_ptr<std::ifstream> file_;  // null: the standard input
  int64_t number_ = 0;
};

// The lines of a file that are not empty; 0 where it is the standard input or cannot be read.
int64_t count_lines(const std::string& path);

// Writes lines to a file; "-" is the standard output. Every write is checked, so that a full disk is an error.
class LineFileWriter {
 public:
  // append: keeps the file's content; else it is overwritten.
  static Result<LineFileWriter> open(const std::string& path, bool append = false);

  Result<void> write(const std::string& line);
  Result<void> close();

 private:
  struct Close {
    void operator()(std::FILE* file) const;
  };
  std::string path_;
  std::unique_ptr<std::FILE, Close> file_;
};

// Fails where both are one file, by whatever paths and links ("-": the standard input and output): writing would
// destroy what is to be read.
Result<void> check_distinct(const std::string& input, const std::string& output);

// Writes a line for each line of `input`: what `answer` makes of it and of its number, from 1.
Result<void> answer_lines(const std::string& input, const std::string& output,
                          const std::function<std::string(const std::string& line, int64_t number)>& answer);

}  // namespace lorikeet::launcher
