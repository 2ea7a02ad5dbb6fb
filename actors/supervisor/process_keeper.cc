#include "actors/supervisor/process_keeper.h"

#include <fcntl.h>
#include <fmt/format.h>
#include <spawn.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <unistd.h>

#include <array>
#include <cerrno>
#include <chrono>
#include <csignal>
#include <cstdio>
#include <cstring>
#include <fstream>
#include <optional>
#include <utility>
#include <vector>

#include "actors/wire/descriptor_channel.h"
#include "kernels/base/console.h"
#include "kernels/base/last_words.h"

namespace lorikeet::actors {
namespace {

// What a rank inherits, beside its control channel.
struct RankEnds {
  Descriptor connection, descriptors;
};

// Both ends of what connects a rank with the head; void for the head.
Result<std::pair<RankEnds, HeadEnds>> connect_with_head(const ChildStart& start) {
  std::pair<RankEnds, HeadEnds> made;
  if (start.rank < 0) return made;
  std::array<int, 2> ends{};
  if (socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, ends.data()) != 0) {
    return fail("no socket pair to the head: {}", std::strerror(errno));
  }
  const Descriptor low(ends[0]);
  made.second.connection.reset(ends[1]);
  auto channel = make_descriptor_channel();
  if (!channel) return tl::unexpected(channel.error());
  made.second.descriptors = std::move(channel->first);
  // The rank's ends must not have the numbers to which inherited descriptors are moved before them.
  made.first.connection.reset(fcntl(low.get(), F_DUPFD_CLOEXEC, ControlChannel::kHeadDescriptor));
  made.first.descriptors.reset(fcntl(channel->second.get(), F_DUPFD_CLOEXEC, ControlChannel::kDescriptorsDescriptor));
  if (!made.first.connection || !made.first.descriptors) {
    return fail("no socket pair to the head: {}", std::strerror(errno));
  }
  return made;
}

// Starts the program as `lorikeet head` or `lorikeet rank`, with `channel` as its control channel and a rank's `ends` of its
// connections to the head. Its output goes to our standard error, since standard output may hold results.
Result<int> start_process(const std::string& program, const ChildStart& start, int channel, const RankEnds& ends) {
  posix_spawn_file_actions_t files;
  posix_spawn_file_actions_init(&files);
  posix_spawn_file_actions_addopen(&files, STDIN_FILENO, "/dev/null", O_RDONLY, 0);
  posix_spawn_file_actions_adddup2(&files, STDERR_FILENO, STDOUT_FILENO);
  posix_spawn_file_actions_adddup2(&files, channel, ControlChannel::kChildDescriptor);
  if (ends.connection) {
    posix_spawn_file_actions_adddup2(&files, ends.connection.get(), ControlChannel::kHeadDescriptor);
    posix_spawn_file_actions_adddup2(&files, ends.descriptors.get(), ControlChannel::kDescriptorsDescriptor);
  }
  posix_spawnattr_t attributes;
  posix_spawnattr_init(&attributes);
  sigset_t all;
  sigfillset(&all);
  posix_spawnattr_setsigmask(&attributes, &all);  // until it has chosen which of them to ignore (ChildProcess)
  posix_spawnattr_setsigdefault(&attributes, &all);
  posix_spawnattr_setflags(&attributes, POSIX_SPAWN_SETSIGMASK | POSIX_SPAWN_SETSIGDEF);

  std::string name = "lorikeet", role = start.rank < 0 ? "head" : "rank", number = std::to_string(start.rank);
  std::array<char*, 4> arguments = {name.data(), role.data(), start.rank < 0 ? nullptr : number.data(), nullptr};
  pid_t pid = 0;
  const int error = posix_spawn(&pid, program.c_str(), &files, &attributes, arguments.data(), environ);
  posix_spawnattr_destroy(&attributes);
  posix_spawn_file_actions_destroy(&files);
  if (error != 0) return fail("could not be started: {}", std::strerror(error));
  return pid;
}

struct KernelState {
  char state = 0;  // as proc(5) has it
  unsigned flags = 0;
};

// nullopt: there is no such process.
std::optional<KernelState> kernel_state(int pid) {
  std::ifstream file(fmt::format("/proc/{}/stat", pid));
  std::string text;
  if (!std::getline(file, text)) return std::nullopt;
  KernelState found;
  const size_t name = text.rfind(')');  // the name may hold anything
  if (name == std::string::npos) return found;
  (void)std::sscanf(text.c_str() + name + 1, " %c %*d %*d %*d %*d %*d %u", &found.state, &found.flags);
  return found;
}

// Whether the kernel has begun to end it. This flag is set before any of its descriptors is closed, so a peer that has
// noticed the end always finds it set; waitpid() reports the end later.
bool kernel_is_ending(int pid) {
  constexpr unsigned kExiting = 4;  // PF_EXITING
  const auto found = kernel_state(pid);
  return !found || found->state == 'Z' || found->state == 'X' || (found->flags & kExiting) != 0;
}

std::string how_it_ended(int status) {
  if (WIFSIGNALED(status)) return fmt::format("was killed by signal {}", WTERMSIG(status));
  return fmt::format("exited with status {}", WEXITSTATUS(status));
}

}  // namespace

ProcessKeeper::~ProcessKeeper() {
  std::vector<ChildId> all;
  {
    const std::lock_guard lock(mutex_);
    for (const auto& [id, child] : children_) all.push_back(id);
  }
  for (const ChildId id : all) kill(id);
  std::unique_lock lock(mutex_);
  if (!all_ended_.wait_for(lock, std::chrono::seconds(10), [this] { return children_.empty(); })) {
    say("lorikeet: {} processes cannot be killed and are left behind", children_.size());
    let_last_words_out(STDERR_FILENO);
    _exit(1);  // their threads wait for them
  }
  if (last_ended_.joinable()) last_ended_.join();
}

Processes::ChildId ProcessKeeper::spawn(ChildStart start, ChildId head) {
  const std::lock_guard lock(mutex_);
  const ChildId id = ++last_id_;
  const auto child = std::make_shared<Child>();
  children_[id] = child;
  start.parent_pid = getpid();
  child->thread = std::thread([this, id, head, child, start = std::move(start)]() mutable {
    live(id, *child, std::move(start), head);
    forget(id);
  });
  return id;
}

// The end of a child's thread, which cannot wait for itself: the next one that ends does.
void ProcessKeeper::forget(ChildId id) {
  std::thread previous;
  {
    const std::lock_guard lock(mutex_);
    const auto child = children_.extract(id);
    previous = std::exchange(last_ended_, std::move(child.mapped()->thread));
    if (children_.empty()) all_ended_.notify_all();
  }
  if (previous.joinable()) previous.join();
}

void ProcessKeeper::live(ChildId id, Child& child, ChildStart start, ChildId head) {
  auto ends = ControlChannel::make_pair();
  if (!ends) return not_started(id, child, ends.error().message);
  auto connection = connect_with_head(start);
  if (!connection) {
    close(ends->first);
    close(ends->second);
    return not_started(id, child, connection.error().message);
  }
  Result<int> pid = fail("was not wanted any more");
  {
    const std::lock_guard lock(child.mutex);
    child.channel = std::make_unique<ControlChannel>(ends->first);
    if (!child.kill_wanted) pid = start_process(program_, start, ends->second, connection->first);
    close(ends->second);
    if (pid) child.pid = *pid;
  }
  connection->first = {};
  if (pid && start.rank >= 0 && callbacks_.connect) {
    callbacks_.connect(id, start, std::move(connection->second));
  } else if (pid && start.rank >= 0) {
    send_ends(head, start, connection->second);
  }
  connection->second = {};
  if (!pid) return not_started(id, child, pid.error().message);

  Result<void> begun;
  {
    const std::lock_guard lock(child.mutex);
    begun = begin(*child.channel, start);
    for (const ChildOrder& order : child.early) {
      if (begun) begun = child.channel->send(order);
    }
    child.early.clear();
    child.begun = true;
  }
  while (begun) {
    auto report = child.channel->receive_report();
    if (!report || !*report) break;
    if (!hear(*child.channel, start.rank, **report)) callbacks_.said(id, **std::move(report));
  }
  // The channel ends with the process. A process that closes it and lives on cannot be controlled, and is killed.
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
    child.ended = true;
    on_purpose = child.killed;
  }
  callbacks_.exited(id, how_it_ended(status), on_purpose, WIFSIGNALED(status) ? WTERMSIG(status) : 0);
}

void ProcessKeeper::not_started(ChildId id, Child& child, const std::string& why) {
  {
    const std::lock_guard lock(child.mutex);
    child.ended = true;
  }
  callbacks_.exited(id, why, false, 0);
}

// Tells the child what it is to be, and hands over the memory of its predecessor.
Result<void> ProcessKeeper::begin(ControlChannel& channel, ChildStart& start) const {
  const auto left = regions_.of(start.rank);
  start.regions = static_cast<uint32_t>(left.size());
  start.descriptors = start.rank >= 0;
  auto sent = channel.send(start);
  for (const auto& region : left) {
    if (sent) sent = channel.send(control::TakeRegion{region->what}, region->memory.get());
  }
  return sent;
}

// Handles reports about held memory; returns whether this was one.
bool ProcessKeeper::hear(ControlChannel& channel, int32_t rank, ChildReport& report) {
  if (const auto* drop = std::get_if<control::DropRegions>(&report)) {
    drop->name.empty() ? regions_.drop(rank) : regions_.drop(rank, drop->name);
    return true;
  }
  auto* hold = std::get_if<control::HoldRegion>(&report);
  if (hold == nullptr) return false;
  const auto held = regions_.hold(rank, std::move(hold->region), channel.take_descriptor());
  if (held) return true;
  report = control::Progress{fmt::format("memory of rank {} is not held: {}", rank, held.error().message)};
  return false;
}

std::shared_ptr<ProcessKeeper::Child> ProcessKeeper::find(ChildId id) {
  const std::lock_guard lock(mutex_);
  const auto it = children_.find(id);
  return it == children_.end() ? nullptr : it->second;
}

void ProcessKeeper::tell(ChildId id, const ChildOrder& order) {
  send(id, order, -1);
}

void ProcessKeeper::send(ChildId id, const ChildOrder& order, int descriptor) {
  const auto child = find(id);
  if (!child) return;
  const std::lock_guard lock(child->mutex);
  if (child->begun) {
    (void)child->channel->send(order, descriptor);  // a child that is gone is reported by its thread
  } else if (descriptor < 0) {
    child->early.push_back(order);
  }
}

void ProcessKeeper::send_ends(ChildId head, const ChildStart& rank, const HeadEnds& ends) {
  send(head, control::RankDescriptors{rank.rank}, ends.descriptors.get());
  send(head, control::RankConnection{rank.epoch, rank.rank}, ends.connection.get());
}

void ProcessKeeper::kill(ChildId id) {
  const auto child = find(id);
  if (!child) return;
  const std::lock_guard lock(child->mutex);
  child->kill_wanted = true;
  if (child->pid == 0) return;
  // Not `on_purpose` if somebody else has killed it before: peers often report the loss before the process is dead.
  if (kernel_is_ending(child->pid)) return;
  child->killed = true;
  ::kill(child->pid, SIGKILL);
}

int ProcessKeeper::pid_of(ChildId id) {
  const auto child = find(id);
  if (!child) return 0;
  const std::lock_guard lock(child->mutex);
  return child->pid;
}

bool ProcessKeeper::is_stopped(ChildId id) {
  const int pid = pid_of(id);
  const auto found = pid == 0 ? std::nullopt : kernel_state(pid);
  return found && (found->state == 'T' || found->state == 't');
}

// True also for a child that has ended or is no longer kept: its exit is reported after its peers' reports.
bool ProcessKeeper::is_ending(ChildId id) {
  const auto child = find(id);
  if (!child) return true;
  const std::lock_guard lock(child->mutex);
  return child->ended || (child->pid != 0 && kernel_is_ending(child->pid));
}

std::string ProcessKeeper::describe(ChildId id) {
  const int pid = pid_of(id);
  const auto found = pid == 0 ? std::nullopt : kernel_state(pid);
  return found ? fmt::format("process {}, state {}", pid, found->state) : "no process";
}

}  // namespace lorikeet::actors
