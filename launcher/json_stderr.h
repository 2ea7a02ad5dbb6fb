// Standard error as lines of JSON, whoever writes to it: this process, the processes that it starts, the libraries that
// they use.
#pragma once

#include <chrono>
#include <memory>
#include <string>
#include <string_view>
#include <thread>

#include "kernels/base/descriptor.h"
#include "kernels/base/error.h"

namespace lorikeet::launcher {

// A line as an object: one that is an object with an "event" already as it is, another one as {"time", "level",
// "event": "message", "line"}. Bytes that are no UTF-8 are replaced.
std::string json_line(std::string_view line, std::chrono::system_clock::time_point now);

// While it lives, the standard error of this process, and of what it starts meanwhile, is a pipe. A thread takes lines
// out of it and writes them as objects to where standard error was before; where nobody takes them within a second,
// whole lines are dropped (kernels/base/line_writer.h). What is said before abort() is written before the process ends.
// One at a time.
class JsonStderr {
 public:
  // Fails where standard error is closed, or where the system gives no pipe or thread.
  static Result<std::unique_ptr<JsonStderr>> begin();
  ~JsonStderr();  // writes what is in the pipe, for a second at the most
  JsonStderr(const JsonStderr&) = delete;
  JsonStderr& operator=(const JsonStderr&) = delete;

 private:
  JsonStderr(Descriptor before, Descriptor pipe, Descriptor end);
  void run() const;

  const Descriptor before_, pipe_;
  const Descriptor end_;  // an eventfd: after a write the thread writes what is left and ends
  std::thread thread_;
};

}  // namespace lorikeet::launcher
