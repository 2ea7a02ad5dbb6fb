#include "actors/head/blocking_pool.h"

#include <fmt/format.h>

#include <algorithm>
#include <condition_variable>
#include <list>
#include <map>
#include <mutex>
#include <system_error>
#include <thread>
#include <unordered_map>
#include <utility>

#include "actors/wire/work_queue.h"

namespace lorikeet::actors {
namespace {

constexpr size_t kJobBytes = 1024;  // that the callbacks of one own, about: names, a directory

std::string in_seconds(std::chrono::milliseconds time) {
  return fmt::format("{:.3g} s", static_cast<double>(time.count()) / 1000);
}

}  // namespace

struct BlockingPool::State {
  struct Running {
    std::string key;
    std::chrono::milliseconds limit;
    std::function<void(const std::string&)> give_up;
    TimePoint began;
    uint64_t bytes = 0;  // among held_bytes
    bool slow = false, given_up = false, finishing = false;
  };

  const Limits limits;
  mutable std::mutex mutex;
  std::condition_variable wake, ended;
  bool stop = false;
  WorkQueue<Job> queue;  // waited for with `wake`, since a job alone does not make a thread's turn
  std::unordered_map<std::string, WorkQueue<Job>::Ticket> tickets;  // of those that wait, by their key
  std::map<WorkQueue<Job>::Ticket, uint64_t> waiting_bytes;         // Job::bytes of those that wait, in their order
  std::list<Running> running;                                       // no more than there are threads
  size_t threads = 0;                                               // all
  size_t idle = 0;                                                  // of them wait for a job
  size_t working = 0;                                               // of them run one that is neither slow nor given up
  uint64_t held_bytes = 0;                                          // by calls that run and are not given up

  explicit State(Limits given) : limits(given), queue(given.queued_bytes) {}
  bool may_take() const {
    if (waiting_bytes.empty() || working >= limits.threads) return false;
    const uint64_t next = waiting_bytes.begin()->second;
    return limits.held_bytes == 0 || held_bytes == 0 || next == 0 ||
           (held_bytes <= limits.held_bytes && next <= limits.held_bytes - held_bytes);
  }
  std::optional<Job> take() {
    auto job = queue.try_pop();
    if (!job) return job;
    tickets.erase(job->key);
    waiting_bytes.erase(waiting_bytes.begin());
    return job;
  }
  bool is_surplus() const { return idle + working >= limits.threads; }
  size_t num_given_up() const {
    return static_cast<size_t>(
        std::count_if(running.begin(), running.end(), [](const Running& call) { return call.given_up; }));
  }
};

BlockingPool::BlockingPool(Limits limits) : state_(std::make_shared<State>(limits)) {}

BlockingPool::~BlockingPool() {
  std::unique_lock lock(state_->mutex);
  state_->stop = true;
  state_->queue.close();
  state_->wake.notify_all();
  const auto all_returned = [this] { return state_->threads == state_->num_given_up(); };
  while (!all_returned()) {
    auto next = TimePoint::max();
    for (State::Running& call : state_->running) {
      if (call.given_up || call.finishing) continue;
      if (std::chrono::steady_clock::now() - call.began > call.limit) call.given_up = true;
      if (!call.given_up) next = std::min(next, call.began + call.limit);
    }
    if (all_returned()) break;
    if (next == TimePoint::max()) {
      state_->ended.wait(lock);  // for threads that wait for a job or answer for one
    } else {
      state_->ended.wait_until(lock, next);
    }
  }
}

void BlockingPool::submit(Job job) {
  std::unique_lock lock(state_->mutex);
  const auto earlier = std::find_if(state_->running.begin(), state_->running.end(), [&](const State::Running& call) {
    return call.given_up && !job.key.empty() && call.key == job.key;
  });
  if (earlier != state_->running.end()) {
    const auto since = std::chrono::steady_clock::now() - earlier->began;
    lock.unlock();
    job.give_up(fmt::format("an earlier attempt has not returned for {}",
                            in_seconds(std::chrono::duration_cast<std::chrono::milliseconds>(since))));
    return;
  }
  const std::string key = job.key;
  const uint64_t bytes = job.bytes;
  const auto give_up = job.give_up;
  const auto ticket = state_->queue.push(std::move(job), kJobBytes);
  if (!ticket) {
    lock.unlock();
    give_up("too many others wait for their disks");
    return;
  }
  if (!key.empty()) state_->tickets[key] = *ticket;
  state_->waiting_bytes[*ticket] = bytes;
  add_threads(state_);
  state_->wake.notify_one();
}

bool BlockingPool::cancel(const std::string& key) {
  const std::lock_guard lock(state_->mutex);
  const auto waiting = state_->tickets.extract(key);
  if (waiting.empty() || !state_->queue.cancel(waiting.mapped())) return false;
  state_->waiting_bytes.erase(waiting.mapped());
  state_->wake.notify_all();  // the next one may fit
  return true;
}

void BlockingPool::tick(TimePoint now) {
  std::vector<Finish> calls;
  {
    const std::lock_guard lock(state_->mutex);
    for (State::Running& call : state_->running) {
      if (!call.slow && now - call.began > std::min(state_->limits.slow, call.limit)) {
        call.slow = true;
        --state_->working;
      }
      if (call.given_up || call.finishing || now - call.began <= call.limit) continue;
      call.given_up = true;
      state_->held_bytes -= std::exchange(call.bytes, 0);
      calls.push_back([give_up = std::move(call.give_up), limit = call.limit] {
        give_up(fmt::format("it has not returned in {}; its thread is left behind", in_seconds(limit)));
      });
    }
    add_threads(state_);
    // Jobs must not wait for threads that may all be blocked for ever.
    if (state_->threads == state_->limits.threads + state_->limits.blocked_threads &&
        state_->num_given_up() == state_->threads) {
      while (auto job = state_->take()) {
        calls.push_back([give_up = std::move(job->give_up), threads = state_->threads] {
          give_up(fmt::format("all {} threads that may wait for disks are blocked", threads));
        });
      }
    }
    state_->wake.notify_all();
  }
  for (const Finish& call : calls) call();
}

std::vector<std::string> BlockingPool::left_behind() const {
  const std::lock_guard lock(state_->mutex);
  std::vector<std::string> keys;
  for (const State::Running& call : state_->running) {
    if (call.given_up) keys.push_back(call.key);
  }
  return keys;
}

// As many threads as have something to do, within the limits. The lock is held.
void BlockingPool::add_threads(const std::shared_ptr<State>& state) {
  const Limits& limits = state->limits;
  while (!state->stop && state->queue.size() > state->idle && !state->is_surplus() &&
         state->threads < limits.threads + limits.blocked_threads) {
    try {
      std::thread([state] { serve(state); }).detach();
    } catch (const std::system_error&) {
      return;  // the system gives no more threads now; the next tick tries again
    }
    ++state->threads;
    ++state->idle;
  }
}

void BlockingPool::serve(const std::shared_ptr<State>& state) {
  std::unique_lock lock(state->mutex);
  for (;;) {  // idle
    state->wake.wait(lock, [&] { return state->stop || state->may_take(); });
    --state->idle;
    if (state->stop) break;
    Job job = *state->take();
    const auto call = state->running.insert(
        state->running.end(),
        {std::move(job.key), job.limit, std::move(job.give_up), std::chrono::steady_clock::now(), job.bytes});
    ++state->working;
    state->held_bytes += job.bytes;
    lock.unlock();
    Finish finish = job.call();
    job.call = nullptr;
    lock.lock();
    if (!call->given_up) {
      call->finishing = true;  // it is not given up any more
      lock.unlock();
      finish();
      lock.lock();
    }
    finish = nullptr;
    if (!call->slow) --state->working;
    state->held_bytes -= call->bytes;
    state->running.erase(call);
    state->wake.notify_all();  // several may fit now
    if (state->is_surplus()) break;
    ++state->idle;
  }
  --state->threads;
  state->ended.notify_all();
}

}  // namespace lorikeet::actors
