// The ranks of a benchmark as processes.
#pragma once

#include <glog/logging.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cstdio>
#include <functional>
#include <vector>

namespace lorikeet::bench {

// Runs body(rank) in as many processes; rank 0 is this one, and the only one that prints. Returns the exit status: 0
// when all have ended well. A CUDA device must not have been used before.
inline int run_ranks(int ranks, const std::function<void(int rank)>& body) {
  std::vector<pid_t> others;
  for (int rank = 1; rank < ranks; ++rank) {
    const pid_t pid = fork();
    PCHECK(pid >= 0);
    if (pid == 0) {
      PCHECK(std::freopen("/dev/null", "w", stdout) != nullptr);
      body(rank);
      _exit(0);
    }
    others.push_back(pid);
  }
  body(0);
  std::fflush(stdout);
  int failed = 0;
  for (const pid_t pid : others) {
    int status = 0;
    PCHECK(waitpid(pid, &status, 0) == pid);
    failed |= status;
  }
  return failed == 0 ? 0 : 1;
}

}  // namespace lorikeet::bench
