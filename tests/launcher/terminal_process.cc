#include "tests/launcher/terminal_process.h"

#include <poll.h>
#include <pty.h>
#include <signal.h>
#include <sys/prctl.h>
#include <sys/wait.h>
#include <termios.h>
#include <unistd.h>

#include <algorithm>
#include <chrono>
#include <cstdlib>

namespace lorikeet::tests {

TerminalProcess::TerminalProcess(const std::vector<std::string>& arguments, int columns, int lines,
                                 const std::vector<std::string>& environment) {
  winsize size{};
  size.ws_col = static_cast<unsigned short>(columns);
  size.ws_row = static_cast<unsigned short>(lines);
  const std::string program = std::string(LORIKEET_BINARY_DIR) + "/lorikeet";
  std::vector<char*> argv = {const_cast<char*>(program.c_str())};
  for (const std::string& argument : arguments) argv.push_back(const_cast<char*>(argument.c_str()));
  argv.push_back(nullptr);
  pid_ = forkpty(&terminal_, nullptr, nullptr, &size);
  if (pid_ != 0) return;
  prctl(PR_SET_PDEATHSIG, SIGKILL);
  setenv("TERM", "xterm-256color", 1);
  unsetenv("NO_COLOR");
  for (const std::string& entry : environment) putenv(const_cast<char*>(entry.c_str()));
  execv(program.c_str(), argv.data());
  _exit(127);
}

TerminalProcess::~TerminalProcess() {
  if (pid_ > 0 && !reaped_) {
    kill(pid_, SIGKILL);
    waitpid(pid_, &status_, 0);
  }
  close(terminal_);
}

void TerminalProcess::type(const std::string& keys) {
  for (size_t written = 0; written < keys.size();) {
    const ssize_t n = write(terminal_, keys.data() + written, keys.size() - written);
    if (n <= 0) return;
    written += static_cast<size_t>(n);
  }
}

bool TerminalProcess::read_some(int milliseconds) {
  pollfd state{terminal_, POLLIN, 0};
  if (poll(&state, 1, milliseconds) <= 0) return true;
  char buffer[4096];
  const ssize_t n = read(terminal_, buffer, sizeof(buffer));
  if (n <= 0) return false;
  shown_.append(buffer, static_cast<size_t>(n));
  return true;
}

bool TerminalProcess::wait_for(const std::string& text, int seconds) {
  const auto end = std::chrono::steady_clock::now() + std::chrono::seconds(seconds);
  while (true) {
    const size_t at = shown_.find(text, seen_);
    if (at != std::string::npos) {
      seen_ = at + text.size();
      return true;
    }
    if (std::chrono::steady_clock::now() > end || !read_some(50)) return false;
  }
}

int TerminalProcess::wait(int seconds) {
  const auto end = std::chrono::steady_clock::now() + std::chrono::seconds(seconds);
  while (read_some(50) && std::chrono::steady_clock::now() < end) {
  }
  while (!reaped_ && std::chrono::steady_clock::now() < end) {
    reaped_ = waitpid(pid_, &status_, WNOHANG) == pid_;
    if (!reaped_) usleep(5000);
  }
  if (!reaped_) return -1;
  return WIFSIGNALED(status_) ? 128 + WTERMSIG(status_) : WEXITSTATUS(status_);
}

size_t widest_line(const std::string& shown) {
  size_t widest = 0, columns = 0;
  for (size_t i = 0; i < shown.size(); ++i) {
    const auto c = static_cast<unsigned char>(shown[i]);
    if (c == 0x1B && i + 1 < shown.size() && shown[i + 1] == '[') {  // a code ends with its letter
      for (i += 2; i < shown.size() && (shown[i] < '@' || shown[i] > '~'); ++i) {
      }
    } else if (c == '\n' || c == '\r') {
      columns = 0;
    } else if ((c & 0xC0) != 0x80) {
      widest = std::max(widest, ++columns);
    }
  }
  return widest;
}

}  // namespace lorikeet::tests
