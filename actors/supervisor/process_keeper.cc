#include "actors/supervisor/process_keeper.h"

#include <fcntl.h>
#include <fmt/format.h>
#include <spawn.h>
#include <sys/wait.h>
#include <unistd.h>

#include <array>
#include <cerrno>
#include <chrono>
#include <csignal>
#include <cstring>
#include <utility>

namespace lorikeet::actors {
namespace {

// Starts this program again as `lorikeet head` or `lorikeet rank`, with `descriptor` as its control channel. Its output
// goes to our standard error, since standard output may be somebody's results.
Result<int> start_process(const ChildStart& start, int descriptor) {
  posix_spawn_file_actions_t files;
  posix_spawn_file_actions_init(&files);
  posix_spawn_file_actions_addopen(&files, STDIN_FILENO, "/dev/null", O_RDONLY, 0);
  posix_spawn_file_actions_adddup2(&files, STDERR_FILENO, STDOUT_FILENO);
  posix_spawn_file_actions_adddup2(&files, descriptor, ControlChannel::kChildDescriptor);
  posix_spawnattr_t attributes;
  posix_spawnattr_init(&attributes);
  sigset_t none, all;
  sigemptyset(&none);
  sigfillset(&all);
  posix_spawnattr_setsigmask(&attributes, &none);
  posix_spawnattr_setsigdefault(&attributes, &all);
  posix_spawnattr_setflags(&attributes, POSIX_SPAWN_SETSIGMASK | POSIX_SPAWN_SETSIGDEF);

  std::string name = "lorikeet", role = start.rank < 0 ? "head" : "rank", number = std::to_string(start.rank);
  std::array<char*, 4> arguments = {name.data(), role.data(), start.rank < 0 ? nullptr : number.data(), nullptr};
  pid_t pid = 0;
  const int error = posix_spawn(&pid, "/proc/self/exe", &files, &attributes, arguments.data(), environ);
  posix_spawnattr_destroy(&attributes);
  posix_spawn_file_actions_destroy(&files);
  if (error != 0) return fail("could not be started: {}", std::strerror(error));
  return pid;
}

std::string how_it_ended(int status) {
  if (WIFSIGNALED(status)) return fmt::format("was killed by signal {}", WTERMSIG(status));
  return fmt::format("exited with status {}", WEXITSTATUS(status));
}

}  // namespace

ProcessKeeper::~ProcessKeeper() {
  std::map<ChildId, std::shared_ptr<Child>> children;
  {
    const std::lock_guard lock(mutex_);
    children = children_;
  }
  for (const auto& [id, child] : children) kill(id);
  for (const auto& [id, child] : children) child->thread.join();
}

Processes::ChildId ProcessKeeper::spawn(ChildStart start) {
  const std::lock_guard lock(mutex_);
  const ChildId id = ++last_id_;
  auto child = std::make_shared<Child>();
  children_[id] = child;
  start.parent_pid = getpid();
  child->thread = std::thread(
      [this, id, &child = *child, start = std::move(start)]() mutable { live(id, child, std::move(start)); });
  return id;
}

void ProcessKeeper::live(ChildId id, Child& child, ChildStart start) {
  auto ends = ControlChannel::make_pair();
  if (!ends) return callbacks_.exited(id, ends.error().message, false);
  Result<int> pid = fail("was not wanted any more");
  {
    const std::lock_guard lock(child.mutex);
    child.channel = std::make_unique<ControlChannel>(ends->first);
    if (!child.kill_wanted) pid = start_process(start, ends->second);
    close(ends->second);
    if (pid) child.pid = *pid;
  }
  if (!pid) return callbacks_.exited(id, pid.error().message, false);

  if (child.channel->send(start)) {
    for (;;) {
      auto report = child.channel->receive_report();
      if (!report || !*report) break;
      callbacks_.said(id, **std::move(report));
    }
  }
  // The channel ends with the process. One that closes it and lives on cannot be spoken to and is of no use.
  constexpr int kExitPauses = 1000;  // of a millisecond
  siginfo_t info = {};
  for (int pauses = 0; waitid(P_PID, static_cast<id_t>(*pid), &info, WEXITED | WNOWAIT | WNOHANG) == 0; ++pauses) {
    if (info.si_pid != 0) break;
    if (pauses == kExitPauses) kill(id);
    std::this_thread::sleep_for(std::chrono::milliseconds(1));
  }
  int status = 0;
  bool on_purpose = false;
  {
    const std::lock_guard lock(child.mutex);
    while (waitpid(*pid, &status, 0) < 0 && errno == EINTR) {
    }
    child.pid = 0;
    on_purpose = child.killed;
  }
  callbacks_.exited(id, how_it_ended(status), on_purpose);
}

std::shared_ptr<ProcessKeeper::Child> ProcessKeeper::find(ChildId id) {
  const std::lock_guard lock(mutex_);
  const auto it = children_.find(id);
  return it == children_.end() ? nullptr : it->second;
}

void ProcessKeeper::tell(ChildId id, const ChildOrder& order) {
  const auto child = find(id);
  if (!child) return;
  const std::lock_guard lock(child->mutex);
  if (child->channel) (void)child->channel->send(order);  // a child that is gone is reported by its thread
}

void ProcessKeeper::kill(ChildId id) {
  const auto child = find(id);
  if (!child) return;
  const std::lock_guard lock(child->mutex);
  child->kill_wanted = true;
  if (child->pid == 0) return;
  // What somebody else has killed is not our doing: its peers often tell of the loss before it is reaped.
  siginfo_t info = {};
  const bool lives =
      waitid(P_PID, static_cast<id_t>(child->pid), &info, WEXITED | WNOWAIT | WNOHANG) == 0 && info.si_pid == 0;
  if (!lives) return;
  child->killed = true;
  ::kill(child->pid, SIGKILL);
}

}  // namespace lorikeet::actors
