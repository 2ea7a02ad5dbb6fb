#include "tests/comm/collective/processes.h"

#include <glog/logging.h>
#include <poll.h>
#include <signal.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <unistd.h>

#include <algorithm>

namespace lorikeet::comm {
namespace {

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

}  // namespace

std::vector<std::string> run_processes(int size, const std::function<std::string(int rank)>& report) {
  std::vector<Child> children;
  for (int rank = 0; rank < size; ++rank) {
    children.push_back(start([&report, rank] { return report(rank); }));
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

namespace {

constexpr size_t kMostText = 64 << 10;
constexpr int kEndMilliseconds = 10'000;

bool send_text(int line, const std::string& text) {
  const size_t size = std::min(text.size(), kMostText);
  return send(line, text.data(), size, MSG_NOSIGNAL) == static_cast<ssize_t>(size);
}

// Nothing where the other side has ended. An empty text is none.
std::string receive_text(int line) {
  std::string text(kMostText, ' ');
  const ssize_t size = recv(line, text.data(), text.size(), 0);
  text.resize(static_cast<size_t>(std::max<ssize_t>(size, 0)));
  return text;
}

[[noreturn]] void serve(int line, const std::function<StandingProcesses::Answer()>& begin) {
  prctl(PR_SET_PDEATHSIG, SIGKILL);
  StandingProcesses::Answer answer = begin();
  for (std::string question = receive_text(line); !question.empty(); question = receive_text(line)) {
    send_text(line, "=" + answer(question));  // never empty
  }
  answer = {};
  _exit(0);
}

}  // namespace

StandingProcesses::StandingProcesses(int size, const std::function<Answer(int rank)>& begin) {
  for (int rank = 0; rank < size; ++rank) {
    int ends[2];
    PCHECK(socketpair(AF_UNIX, SOCK_SEQPACKET, 0, ends) == 0);
    const pid_t pid = fork();
    PCHECK(pid >= 0);
    if (pid == 0) {
      close(ends[0]);
      serve(ends[1], [&] { return begin(rank); });
    }
    close(ends[1]);
    children_.push_back({pid, ends[0]});
  }
}

StandingProcesses::~StandingProcesses() {
  for (const Child& child : children_) send(child.line, "", 0, MSG_NOSIGNAL);
  for (const Child& child : children_) {
    pollfd item{child.line, POLLIN, 0};
    if (poll(&item, 1, kEndMilliseconds) == 0) kill(child.pid, SIGKILL);
    close(child.line);
    waitpid(child.pid, nullptr, 0);
  }
}

std::vector<std::string> StandingProcesses::ask(const std::string& question) {
  CHECK(!question.empty());
  for (const Child& child : children_) send_text(child.line, question);
  std::vector<std::string> answers;
  for (const Child& child : children_) {
    const std::string text = receive_text(child.line);
    answers.push_back(text.empty() ? "the process has ended" : text.substr(1));
  }
  return answers;
}

}  // namespace lorikeet::comm
