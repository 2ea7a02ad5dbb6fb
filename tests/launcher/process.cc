#include "tests/launcher/process.h"

#include <fcntl.h>
#include <signal.h>
#include <stdlib.h>
#include <sys/prctl.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include <chrono>
#include <fstream>
#include <iterator>
#include <thread>
#include <utility>

namespace lorikeet::tests {
namespace {

// Polls, because the things watched here (files, other processes) have no event to wait for.
template <class Condition>
bool poll_until(Condition condition, int seconds) {
  const auto end = std::chrono::steady_clock::now() + std::chrono::seconds(seconds);
  while (!condition()) {
    if (std::chrono::steady_clock::now() > end) return false;
    std::this_thread::sleep_for(std::chrono::milliseconds(10));
  }
  return true;
}

pid_t spawn(const std::string& program, const std::vector<std::string>& arguments, const std::filesystem::path& out,
            const std::filesystem::path& err) {
  std::vector<char*> argv = {const_cast<char*>(program.c_str())};
  for (const std::string& argument : arguments) argv.push_back(const_cast<char*>(argument.c_str()));
  argv.push_back(nullptr);
  const pid_t pid = fork();
  if (pid != 0) return pid;
  setpgid(0, 0);
  prctl(PR_SET_PDEATHSIG, SIGKILL);  // what is sent to the test's group does not reach it
  const int out_fd = open(out.c_str(), O_WRONLY | O_CREAT | O_TRUNC, 0600);
  const int err_fd = open(err.c_str(), O_WRONLY | O_CREAT | O_TRUNC, 0600);
  dup2(out_fd, STDOUT_FILENO);
  dup2(err_fd, STDERR_FILENO);
  execv(program.c_str(), argv.data());
  _exit(127);
}

int exit_status(int status) {
  return WIFSIGNALED(status) ? 128 + WTERMSIG(status) : WEXITSTATUS(status);
}

// The parent of a process and its state letter, from /proc/PID/stat; false where there is no such process.
bool read_stat(const std::string& pid, pid_t* parent, char* state) {
  const std::string text = read_file("/proc/" + pid + "/stat");
  const size_t end = text.rfind(')');  // the name in parentheses may hold anything
  return end != std::string::npos && sscanf(text.c_str() + end + 1, " %c %d", state, parent) == 2;
}

}  // namespace

Process::Process(const std::vector<std::string>& arguments, const TempDir& scratch, const std::string& name,
                 const std::filesystem::path& err)
    : out_(scratch / (name + ".out")), err_(err.empty() ? scratch / (name + ".err") : err) {
  pid_ = spawn(std::string(LORIKEET_BINARY_DIR) + "/lorikeet", arguments, out_, err_);
}

Process::~Process() {
  if (!running()) return;
  signal(SIGKILL);
  wait();
}

void Process::signal(int number) const {
  kill(pid_, number);
}

void Process::signal_group(int number) const {
  kill(-pid_, number);
}

bool Process::running() {
  if (!reaped_ && waitpid(pid_, &status_, WNOHANG) == pid_) reaped_ = true;
  return !reaped_;
}

int Process::wait() {
  if (!reaped_ && waitpid(pid_, &status_, 0) == pid_) reaped_ = true;
  return exit_status(status_);
}

std::string Process::out() const {
  return read_file(out_);
}
std::string Process::err() const {
  return read_file(err_);
}

bool Process::wait_for_output(const std::string& text, int seconds) {
  return wait_for(out_, text, seconds);
}

bool Process::wait_for_err(const std::string& text, int seconds) {
  return wait_for(err_, text, seconds);
}

bool Process::wait_for(const std::filesystem::path& file, const std::string& text, int seconds) {
  bool found = false;
  poll_until(
      [&] {
        const bool was_running = running();
        found = read_file(file).find(text) != std::string::npos;
        return found || !was_running;
      },
      seconds);
  return found;
}

Finished run_lorikeet(const std::vector<std::string>& arguments, const std::filesystem::path& err) {
  TempDir scratch;
  Process process(arguments, scratch, "run", err);
  const int status = process.wait();
  return {status, process.out(), err.empty() ? process.err() : ""};
}

Finished run_python(const std::filesystem::path& script, const std::vector<std::string>& arguments) {
  const std::filesystem::path python = source_path("build/venv/bin/python");
  if (!std::filesystem::exists(python)) {
    return {127, "", "launcher/install_dependencies.sh --tests makes " + python.string() + ", which is not there"};
  }
  TempDir scratch;
  std::vector<std::string> words = {script.string()};
  words.insert(words.end(), arguments.begin(), arguments.end());
  int status = 0;
  waitpid(spawn(python.string(), words, scratch / "out", scratch / "err"), &status, 0);
  return {exit_status(status), read_file(scratch / "out"), read_file(scratch / "err")};
}

Pipe::Pipe(const std::filesystem::path& path) : path_(path) {
  mkfifo(path.c_str(), 0600);
  reader_ = open(path.c_str(), O_RDONLY | O_NONBLOCK | O_CLOEXEC);
}

Pipe::~Pipe() {
  close_reader();
}

void Pipe::fill() {
  const int writer = open(path_.c_str(), O_WRONLY | O_NONBLOCK | O_CLOEXEC);
  const std::string bytes(1024, 'x');
  while (write(writer, bytes.data(), bytes.size()) > 0) {
  }
  close(writer);
}

void Pipe::close_reader() {
  if (reader_ >= 0) close(std::exchange(reader_, -1));
}

std::vector<pid_t> descendants_of(pid_t pid) {
  std::vector<pid_t> found;
  for (const auto& entry : std::filesystem::directory_iterator("/proc")) {
    const std::string name = entry.path().filename().string();
    if (name.find_first_not_of("0123456789") != std::string::npos) continue;
    pid_t parent = 0;
    char state = 0;
    if (!read_stat(name, &parent, &state) || parent != pid) continue;
    const pid_t child = static_cast<pid_t>(std::stol(name));
    found.push_back(child);
    for (const pid_t grandchild : descendants_of(child)) found.push_back(grandchild);
  }
  return found;
}

bool is_alive(pid_t pid) {
  pid_t parent = 0;
  char state = 0;
  return read_stat(std::to_string(pid), &parent, &state) && state != 'Z' && state != 'X';
}

bool wait_until_gone(const std::vector<pid_t>& pids, int seconds) {
  return poll_until(
      [&] {
        for (const pid_t pid : pids) {
          if (is_alive(pid)) return false;
        }
        return true;
      },
      seconds);
}

std::string read_file(const std::filesystem::path& path) {
  std::ifstream file(path, std::ios::binary);
  return {std::istreambuf_iterator<char>(file), std::istreambuf_iterator<char>()};
}

}  // namespace lorikeet::tests
