// Lines for a reader that may rest, at most a second of waiting for it, and each line whole or not at all.
#pragma once

#include <atomic>
#include <chrono>
#include <cstddef>
#include <string>
#include <string_view>

namespace lorikeet {

// Writes in pieces that a descriptor takes at once. Waits for a reader that does not read as long as its patience, and
// not at all after that until the reader reads again. Threads: any.
class PatientWriter {
 public:
  static constexpr std::chrono::milliseconds kPatience{1000};

  explicit PatientWriter(std::chrono::milliseconds patience = kPatience) : patience_(patience) {}

  // How many bytes were written: fewer where the reader rests, or is gone, or its disk is full.
  size_t write(int descriptor, std::string_view text);

 private:
  bool takes_bytes(int descriptor);

  const std::chrono::milliseconds patience_;
  std::atomic<bool> reader_rests_{false};
};

// Where the reader rests, lines are dropped; one that it has got a part of is gone on with when it reads again.
// Threads: one at a time.
class LineWriter {
 public:
  explicit LineWriter(int descriptor, std::chrono::milliseconds patience = PatientWriter::kPatience)
      : descriptor_(descriptor), writer_(patience) {}

  void write(std::string line);  // the line's end is added

 private:
  const int descriptor_;
  PatientWriter writer_;
  std::string rest_;  // of the line that the reader has got a part of
};

}  // namespace lorikeet
