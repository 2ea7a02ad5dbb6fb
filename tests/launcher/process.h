// Child processes of tests: the built `lorikeet`, its output, its signals, what is left of it.
#pragma once

#include <sys/types.h>

#include <filesystem>
#include <string>
#include <vector>

#include "tests/temp_dir.h"

namespace lorikeet::tests {

// A running `lorikeet ARGUMENTS...`; its standard output and error go to files. Destruction kills it.
class Process {
 public:
  // err: where its standard error goes instead, such as /dev/full. It leads a process group of its own.
  Process(const std::vector<std::string>& arguments, const TempDir& scratch, const std::string& name,
          const std::filesystem::path& err = {});
  ~Process();
  Process(const Process&) = delete;
  Process& operator=(const Process&) = delete;

  pid_t pid() const { return pid_; }
  void signal(int number) const;
  void signal_group(int number) const;  // to it and all its children, as a terminal or `timeout` does
  bool running();
  int wait();  // the exit status; 128 + signal where one ended it

  std::string out() const;
  std::string err() const;

  // Waits until the output holds `text`; false when the process ended, or `seconds` passed, without it.
  bool wait_for_output(const std::string& text, int seconds = 120);
  bool wait_for_err(const std::string& text, int seconds = 120);  // the same of its standard error

 private:
  bool wait_for(const std::filesystem::path& file, const std::string& text, int seconds);

  pid_t pid_ = -1;
  bool reaped_ = false;
  int status_ = 0;
  std::filesystem::path out_, err_;
};

struct Finished {
  int status = 0;
  std::string out, err;
};

// Runs `lorikeet ARGUMENTS...` to its end. err: as above.
Finished run_lorikeet(const std::vector<std::string>& arguments, const std::filesystem::path& err = {});

// Runs a Python script to its end, with the packages of tests/requirements.txt.
Finished run_python(const std::filesystem::path& script, const std::vector<std::string>& arguments = {});

// A pipe in the file system. Whoever opens it to write finds a reader; what is written is not read.
class Pipe {
 public:
  explicit Pipe(const std::filesystem::path& path);
  ~Pipe();
  Pipe(const Pipe&) = delete;
  Pipe& operator=(const Pipe&) = delete;

  const std::filesystem::path& path() const { return path_; }
  void fill();          // what is written from now on waits
  void close_reader();  // what is written from now on fails

 private:
  std::filesystem::path path_;
  int reader_;
};

// The processes whose parent is `pid`, and theirs, and so on.
std::vector<pid_t> descendants_of(pid_t pid);

// Whether a process of that id exists and is not a zombie.
bool is_alive(pid_t pid);

// Waits until none of them is alive; false when one still is after `seconds`.
bool wait_until_gone(const std::vector<pid_t>& pids, int seconds = 60);

std::string read_file(const std::filesystem::path& path);

inline std::filesystem::path source_path(const std::string& name) {
  return std::filesystem::path(LORIKEET_SOURCE_DIR) / name;
}

}  // namespace lorikeet::tests
