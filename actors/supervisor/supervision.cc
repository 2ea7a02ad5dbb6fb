#include "actors/supervisor/supervision.h"

#include <fmt/format.h>

#include <algorithm>
#include <array>
#include <csignal>
#include <utility>
#include <variant>
#include <vector>

namespace lorikeet::actors {
namespace {

// Signals that a process causes itself. To end a process from outside, others are sent.
bool is_fault(int signal) {
  constexpr std::array kFaults = {SIGSEGV, SIGABRT, SIGBUS, SIGFPE, SIGILL, SIGSYS, SIGTRAP};
  return std::find(kFaults.begin(), kFaults.end(), signal) != kFaults.end();
}

std::string name_of_child(int32_t rank) {
  return rank < 0 ? "the head" : fmt::format("rank {}", rank);
}

}  // namespace

// ---- starting

void Supervision::start(TimePoint now) {
  spawn(-1, now);
}

void Supervision::spawn(int32_t rank, TimePoint now) {
  ChildStart start{options_, epoch_, rank, 0};
  // Clients find a new head where the old one was.
  if (!address_.empty()) start.options.zmq_address = address_;
  if (http_port_ > 0) start.options.http.port = http_port_;
  Child& child = children_[processes_.spawn(std::move(start), rank < 0 ? 0 : head_)];
  child.rank = rank;
  child.started = child.since = last_progress_ = now;
}

// Starts the ranks that have no process. A rank uses its predecessor's device, so that one must be dead first.
void Supervision::start_missing_ranks(TimePoint now) {
  if (state_ != State::forming || head_ == 0) return;
  std::vector<bool> is_here(static_cast<size_t>(options_.tensor_parallel_size));
  for (const auto& [id, child] : children_) {
    if (child.rank < 0) continue;
    if (!is_alive(child.state)) return;
    is_here[static_cast<size_t>(child.rank)] = true;
  }
  for (size_t rank = 0; rank < is_here.size(); ++rank) {
    if (!is_here[rank]) spawn(static_cast<int32_t>(rank), now);
  }
}

// ---- what children say

void Supervision::said(ChildId id, ChildReport& report, TimePoint now) {
  const auto it = children_.find(id);
  if (it == children_.end()) return;
  Child& child = it->second;
  child.silent_beats = 0;
  child.has_spoken = true;
  if (!std::holds_alternative<control::Alive>(report)) last_progress_ = now;
  happen(id, child, RankEvent::spoke, now);
  std::visit([&](auto& what) { take(id, child, what, now); }, report);
}

void Supervision::take(ChildId id, Child& child, const control::AwaitsRanks&, TimePoint now) {
  if (child.rank >= 0) return;
  head_ = id;
  if (state_ == State::starting) state_ = State::forming;
  start_missing_ranks(now);
}

void Supervision::take(ChildId, Child&, const control::Progress& progress, TimePoint) {
  callbacks_.progress(progress.line);
}

void Supervision::take(ChildId, Child& child, const control::Loading& loading, TimePoint) {
  if (child.rank >= 0) callbacks_.loading(child.rank, loading.done, loading.total);
}

void Supervision::take(ChildId, Child& child, control::Failed& failed, TimePoint) {
  child.last_words = std::move(failed.why);
  child.failed_by_itself = failed.by_itself;
}

void Supervision::take(ChildId, Child& from, const control::Ready& ready, TimePoint now) {
  if (from.rank >= 0 || ready.epoch != epoch_ || state_ != State::forming) return;
  state_ = State::serving;
  served_since_ = now;
  http_port_ = ready.http_port;
  for (auto& [of, child] : children_) {
    if (child.rank < 0) continue;
    child.has_served = true;
    happen(of, child, RankEvent::group_serves, now);
  }
  const bool first = std::exchange(address_, ready.address).empty();
  if (first) {
    callbacks_.ready(ready);
  } else {
    callbacks_.progress(fmt::format("serving again (epoch {})", epoch_));
  }
}

// Ranks that the head misses are killed; all are, where a rank has failed by itself and it is not known which.
void Supervision::take(ChildId, Child& from, const control::GroupLost& lost, TimePoint now) {
  const uint64_t last = loss_.known ? epoch_ - 1 : epoch_;
  if (from.rank >= 0 || lost.epoch != last) return;
  std::set<int32_t> condemned(lost.ranks.begin(), lost.ranks.end());
  if (lost.by_rank && condemned.empty()) condemned = all_ranks();
  lose_group(lost.why, Evidence::reported, lost.by_rank, condemned, now);
}

void Supervision::take(ChildId, Child&, const control::Alive&, TimePoint) {}

void Supervision::take(ChildId id, Child& child, const control::HasLeft& left, TimePoint now) {
  if (left.epoch == epoch_) happen(id, child, RankEvent::has_left, now);
}

// ---- what becomes of a process

void Supervision::happen(ChildId id, Child& child, RankEvent event, TimePoint now) {
  const auto [next, action] = step_of(child.state, event);
  if (next != child.state || action == RankAction::tell_to_leave) child.since = now;
  child.state = next;
  switch (action) {
    case RankAction::none:
      break;
    case RankAction::tell_to_leave:
      processes_.tell(id, control::LeaveGroup{epoch_});
      break;
    case RankAction::kill:
      processes_.kill(id);
      break;
    case RankAction::abandon:
      // It, or its device, may still write to what its successor would take over.
      if (child.rank >= 0) processes_.drop_regions(child.rank);
      callbacks_.failure(fmt::format("{} ({}) cannot be killed and is left behind", name_of_child(child.rank),
                                     processes_.describe(id)));
      break;
  }
}

void Supervision::exited(ChildId id, const std::string& how, bool on_purpose, int signal, TimePoint now) {
  const auto found = children_.extract(id);
  if (found.empty()) return;
  const Child& child = found.mapped();
  if (id == head_) head_ = 0;
  if (state_ == State::stopping) return child.rank < 0 ? kill_all(now) : stop_if_alone();
  if (child.rank < 0) return lose_head(child.last_words.empty() ? "the head " + how : child.last_words, now);
  // What a predecessor left may be the reason.
  if (!child.has_served && (is_fault(signal) || child.failed_by_itself)) processes_.drop_regions(child.rank);
  const bool of_an_older_epoch = child.state == RankState::dying && !loss_.known;
  if (!of_an_older_epoch && !child.last_words.empty()) {
    lose_group(child.last_words, Evidence::words, child.failed_by_itself, {}, now);
  } else if (!of_an_older_epoch && !on_purpose) {
    lose_group(fmt::format("rank {} {}", child.rank, how), Evidence::death, is_fault(signal), {}, now);
  }
  go_on(now);
}

// ---- losses

std::set<int32_t> Supervision::all_ranks() const {
  std::set<int32_t> all;
  for (int32_t rank = 0; rank < options_.tensor_parallel_size; ++rank) all.insert(rank);
  return all;
}

// by_rank: a rank failed by itself. If somebody has stopped a rank, no rank is at fault for missing it.
void Supervision::lose_group(const std::string& why, Evidence evidence, bool by_rank,
                             const std::set<int32_t>& condemned, TimePoint now) {
  if (state_ == State::starting || state_ == State::stopping || state_ == State::stopped) return;
  if (!loss_.known) {
    loss_ = {why, evidence, by_rank, false, true};
    served_for_ = state_ == State::serving ? std::chrono::duration_cast<Duration>(now - served_since_) : Duration(0);
    state_ = State::losing;
    ++epoch_;
  } else if (evidence > loss_.evidence) {
    loss_.by_rank = evidence == Evidence::death ? by_rank : by_rank || loss_.by_rank;
    loss_.why = why;
    loss_.evidence = evidence;
  }
  for (auto& [id, child] : children_) {
    if (child.rank < 0 || !is_alive(child.state)) continue;
    const bool stopped = processes_.is_stopped(id);
    if (stopped) callbacks_.failure(fmt::format("rank {} has been stopped by somebody", child.rank));
    loss_.was_stopped |= stopped;
    if (processes_.is_ending(id)) {
      child.state = RankState::dying;  // not by us: `exited` will say why
      child.since = now;
    } else if (stopped || condemned.contains(child.rank) || processes_.awaits_host(id)) {
      happen(id, child, RankEvent::condemned, now);
    } else if (child.told_of_epoch != epoch_) {
      child.told_of_epoch = epoch_;
      happen(id, child, RankEvent::group_lost, now);
    }
  }
  go_on(now);
}

void Supervision::lose_head(const std::string& why, TimePoint now) {
  if (!loss_.known) {
    served_for_ = state_ == State::serving ? std::chrono::duration_cast<Duration>(now - served_since_) : Duration(0);
    ++epoch_;
  }
  loss_ = {why, Evidence::death, false, false, true};
  for (auto& [id, child] : children_) happen(id, child, RankEvent::condemned, now);
  wait_or_begin(now);
}

// Goes on once no better evidence of the present loss can come. Ranks notice the death of a head before we do.
void Supervision::go_on(TimePoint now) {
  if (state_ == State::losing) {
    const bool a_rank_dies = std::any_of(children_.begin(), children_.end(), [](const auto& child) {
      return child.second.rank >= 0 && !is_alive(child.second.state);
    });
    if (!a_rank_dies && !(head_ != 0 && processes_.is_ending(head_))) wait_or_begin(now);
  } else if (state_ == State::backing_off) {
    if (now >= start_again_) begin_epoch(now);
  } else {
    start_missing_ranks(now);
  }
}

void Supervision::wait_or_begin(TimePoint now) {
  callbacks_.failure(loss_.why);
  if (address_.empty()) return stop_with(1, now);
  const Duration delay = pacer_.lost_after(served_for_);
  if (delay.count() == 0) return begin_epoch(now);
  callbacks_.failure(fmt::format("the ranks are lost again and again: they are started in {} ms", delay.count()));
  state_ = State::backing_off;
  start_again_ = now + delay;
}

void Supervision::begin_epoch(TimePoint now) {
  const Loss loss = std::exchange(loss_, {});
  last_progress_ = now;
  if (head_ == 0) {
    state_ = State::starting;
    return spawn(-1, now);
  }
  state_ = State::forming;
  processes_.tell(head_, control::NewEpoch{epoch_, loss.why, loss.by_rank && !loss.was_stopped, loss.by_rank});
  start_missing_ranks(now);
}

// ---- time

void Supervision::tick(TimePoint now) {
  const bool is_beat = now >= next_beat_;
  if (is_beat) next_beat_ = now + Duration(options_.heartbeat_ms);
  std::vector<ChildId> all;
  for (const auto& [id, child] : children_) all.push_back(id);
  for (const ChildId id : all) {
    if (const auto it = children_.find(id); it != children_.end()) look_at(id, it->second, is_beat, now);
  }
  if (state_ == State::stopping) {
    if (now >= stop_until_) kill_all(now);
    return stop_if_alone();
  }
  if (state_ == State::forming && now - last_progress_ > kProgressPatience) {
    lose_group(fmt::format("no rank has got on in {} s of starting", kProgressPatience.count() / 1000),
               Evidence::reported, false, all_ranks(), now);
  }
  go_on(now);
}

void Supervision::look_at(ChildId id, Child& child, bool is_beat, TimePoint now) {
  if (child.state == RankState::dying) {
    if (now - child.since <= kDeathPatience) return;
    const bool is_head = child.rank < 0;
    happen(id, child, RankEvent::overdue, now);
    children_.erase(id);
    if (!is_head || state_ == State::stopping) return;
    head_ = 0;
    return lose_head("the head does not end", now);
  }
  if (state_ == State::stopping) return;
  if (processes_.awaits_host(id)) {  // for as long as it takes: requests have their own deadlines
    child.started = child.since = last_progress_ = now;
    return;
  }
  const bool late = child.has_spoken ? child.silent_beats >= kSilentBeats : now - child.started > kStartPatience;
  if (late || (child.state == RankState::leaving && now - child.since > kLeavePatience)) {
    const std::string why = fmt::format("{} ({}) {}", name_of_child(child.rank), processes_.describe(id),
                                        late ? "does not answer" : "has not left the group in time");
    if (child.rank >= 0) return lose_group(why, Evidence::reported, false, {child.rank}, now);
    if (child.last_words.empty()) child.last_words = why;
    return happen(id, child, RankEvent::overdue, now);
  }
  if (!is_beat) return;
  ++child.silent_beats;
  processes_.tell(id, control::Ping{});
}

// ---- stopping

void Supervision::stop(TimePoint now) {
  state_ == State::stopping ? kill_all(now) : stop_with(0, now);
}

void Supervision::stop_with(int status, TimePoint now) {
  if (state_ == State::stopping || state_ == State::stopped) return;
  state_ = State::stopping;
  status_ = status;
  stop_until_ = now + Duration(options_.drain_timeout_ms) + kStopPatience;
  bool has_head = false;
  for (const auto& [id, child] : children_) {
    if (child.rank >= 0 || !is_alive(child.state)) continue;
    has_head = true;
    processes_.tell(id, control::Stop{});
  }
  if (!has_head) kill_all(now);
}

void Supervision::kill_all(TimePoint now) {
  for (auto& [id, child] : children_) happen(id, child, RankEvent::condemned, now);
  stop_if_alone();
}

void Supervision::stop_if_alone() {
  if (!children_.empty() || state_ != State::stopping) return;
  state_ = State::stopped;
  callbacks_.stopped(status_);
}

}  // namespace lorikeet::actors
