// `lorikeet` in a pseudo-terminal, as people see it.
#pragma once

#include <sys/types.h>

#include <string>
#include <utility>
#include <vector>

namespace lorikeet::tests {

// A running `lorikeet ARGUMENTS...` whose three standard streams are a terminal. Destruction kills it.
class TerminalProcess {
 public:
  // environment: NAME=VALUE, on top of the test's own.
  TerminalProcess(const std::vector<std::string>& arguments, int columns, int lines,
                  const std::vector<std::string>& environment = {});
  ~TerminalProcess();
  TerminalProcess(const TerminalProcess&) = delete;
  TerminalProcess& operator=(const TerminalProcess&) = delete;

  pid_t pid() const { return pid_; }
  void type(const std::string& keys);  // "\x03" is Ctrl-C, "\x04" the end of the input

  // Reads until the screen has shown `text` behind what an earlier call found; false where the process ended, or
  // `seconds` passed, without it.
  bool wait_for(const std::string& text, int seconds = 60);

  int wait(int seconds = 60);  // reads to the end; the exit status, 128 + signal; -1: it did not end in time

  const std::string& shown() const { return shown_; }  // everything so far, codes included

 private:
  bool read_some(int milliseconds);  // false: the terminal is closed

  pid_t pid_ = -1;
  int terminal_ = -1;
  bool reaped_ = false;
  int status_ = 0;
  std::string shown_;
  size_t seen_ = 0;
};

// The longest line of what was shown, as columns, without the terminal's codes.
size_t widest_line(const std::string& shown);

}  // namespace lorikeet::tests
