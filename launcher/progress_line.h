// Shows the progress of something slow: on a terminal as one line that is rewritten in place, with a bar and the time left;
// elsewhere as a plain line now and then.
#pragma once

#include <chrono>
#include <cstdint>
#include <functional>
#include <mutex>
#include <optional>
#include <string>

#include "launcher/terminal.h"

namespace lorikeet::launcher {

struct Progress {
  std::string what;  // "loading"
  int64_t done = 0;
  int64_t total = 0;  // 0: not known
  std::string unit;   // "layers"
  std::string more;   // behind the count: "812 tokens/s"
};

// The line, without its end, of at most `columns`. seconds_left below 0: not known.
std::string progress_text(const Progress& progress, double seconds_left, size_t columns);

// Threads: any.
class ProgressLine {
 public:
  using Clock = std::chrono::steady_clock;

  // now: for tests.
  explicit ProgressLine(int descriptor, std::function<Clock::time_point()> now = Clock::now);
  ~ProgressLine();
  ProgressLine(const ProgressLine&) = delete;
  ProgressLine& operator=(const ProgressLine&) = delete;

  // Shows it where that is due: ten times a second on a terminal, every ten seconds elsewhere.
  void show(const Progress& progress);
  void end();                         // removes the line; the next show() starts a new bar
  void say(const std::string& line);  // a whole line above it

 private:
  void erase();

  const int descriptor_;
  const Terminal terminal_;
  const std::function<Clock::time_point()> now_;
  std::mutex mutex_;  // guards the rest, and keeps what is written in one piece
  struct Shown {
    Clock::time_point begin, last;
    int64_t begun_at = 0;  // what was done at the begin
    std::string text;      // on the terminal; empty: nothing is
  };
  std::optional<Shown> shown_;
};

}  // namespace lorikeet::launcher
