// Runs the ranks of a group as forked processes.
#pragma once

#include <sys/types.h>

#include <functional>
#include <string>
#include <vector>

namespace lorikeet::comm {

// Forks `size` children; child i makes report(i) and exits. One report per child. A child that dies or stops says
// "killed by signal N"; those that stop are killed once all others have ended.
std::vector<std::string> run_processes(int size, const std::function<std::string(int rank)>& report);

// Children that stay and answer one question after the other, for tests of which each would begin anew what takes long to
// begin. They are copies of this process as it was when they were made.
class StandingProcesses {
 public:
  using Answer = std::function<std::string(const std::string& question)>;

  // Child i answers by what begin(i) gives it, and ends when that is gone.
  StandingProcesses(int size, const std::function<Answer(int rank)>& begin);
  ~StandingProcesses();
  StandingProcesses(const StandingProcesses&) = delete;
  StandingProcesses& operator=(const StandingProcesses&) = delete;

  // What each answers, at most 64 KiB of it. One that has ended says so, now and later.
  std::vector<std::string> ask(const std::string& question);

 private:
  struct Child {
    pid_t pid = -1;
    int line = -1;
  };
  std::vector<Child> children_;
};

}  // namespace lorikeet::comm
