#include "tests/comm/ranks.h"

#include <glog/logging.h>
#include <poll.h>
#include <signal.h>
#include <sys/wait.h>
#include <unistd.h>

#include <memory>
#include <thread>
#include <utility>

#include "tests/comm/file_rendezvous.h"

namespace lorikeet::comm {
namespace {

std::string report_of(Collective& collective, const RankBody& body) {
  try {
    return body(collective);
  } catch (const CollectiveError& error) {
    return std::string("threw ") + error.what();
  }
}

std::string gloo_report(const std::filesystem::path& directory, GlooOptions options, int rank, int size,
                        const RankBody& body) {
  FileRendezvous store(directory);
  options.rank = rank;
  options.size = size;
  options.prefix = "test";
  Result<std::unique_ptr<Collective>> collective = make_gloo_collective(store, options);
  if (!collective) return collective.error().message;
  return report_of(**collective, body);
}

struct Child {
  pid_t pid = -1;
  int pipe = -1;  // carries its report
};

Child start(const std::function<std::string()>& report) {
  int ends[2];
  PCHECK(pipe(ends) == 0);
  const pid_t pid = fork();
  PCHECK(pid >= 0);
  if (pid == 0) {
    close(ends[0]);
    const std::string text = report();
    const bool written = write(ends[1], text.data(), text.size()) == static_cast<ssize_t>(text.size());
    _exit(written ? 0 : 1);
  }
  close(ends[1]);
  return {pid, ends[0]};
}

std::string wait_for(const Child& child) {
  std::string report;
  char bytes[4096];
  for (ssize_t size = 0; (size = read(child.pipe, bytes, sizeof(bytes))) > 0;) report.append(bytes, size);
  close(child.pipe);
  int status = 0;
  PCHECK(waitpid(child.pid, &status, 0) == child.pid);
  if (WIFSIGNALED(status)) return "killed by signal " + std::to_string(WTERMSIG(status));
  return report;
}

bool is_stopped(pid_t pid) {
  siginfo_t info{};
  return waitid(P_PID, pid, &info, WSTOPPED | WNOHANG | WNOWAIT) == 0 && info.si_pid == pid;
}

std::vector<std::string> run_processes(int size, const GlooOptions& options, const RankBody& body) {
  const TemporaryDirectory directory;
  std::vector<Child> children;
  for (int rank = 0; rank < size; ++rank) {
    children.push_back(start([&, rank] { return gloo_report(directory.path(), options, rank, size, body); }));
  }
  // The stopped ones cannot end by themselves: the others first.
  std::vector<std::string> reports(size);
  std::vector<bool> ended(size, false);
  for (int rank = 0; rank < size; ++rank) {
    pollfd item{children[rank].pipe, POLLIN, 0};
    while (poll(&item, 1, 100) == 0 && !is_stopped(children[rank].pid)) {
    }
    if (is_stopped(children[rank].pid)) continue;
    reports[rank] = wait_for(children[rank]);
    ended[rank] = true;
  }
  for (int rank = 0; rank < size; ++rank) {
    if (ended[rank]) continue;
    kill(children[rank].pid, SIGKILL);
    reports[rank] = wait_for(children[rank]);
  }
  return reports;
}

}  // namespace

std::string name_of(RankKind kind) {
  switch (kind) {
    case RankKind::local_threads:
      return "LocalThreads";
    case RankKind::gloo_threads:
      return "GlooThreads";
    case RankKind::gloo_processes:
      return "GlooProcesses";
  }
  return "";
}

std::vector<std::string> run_ranks(RankKind kind, int size, const RankBody& body, const GlooOptions& options) {
  if (kind == RankKind::gloo_processes) return run_processes(size, options, body);
  const TemporaryDirectory directory;
  std::vector<std::string> reports(size);
  std::vector<std::thread> threads;
  auto local = make_local_group(size);
  for (int rank = 0; rank < size; ++rank) {
    threads.emplace_back([&, rank] {
      if (kind == RankKind::gloo_threads) {
        reports[rank] = gloo_report(directory.path(), options, rank, size, body);
      } else {
        reports[rank] = report_of(*local[rank], body);
        local[rank].reset();
      }
    });
  }
  for (std::thread& thread : threads) thread.join();
  return reports;
}

}  // namespace lorikeet::comm
