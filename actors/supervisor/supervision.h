// What the supervisor decides: which processes are started, told to leave, killed and left behind, and when to give up.
// Without CAF, clocks and timers: events come in with the time, orders go to Processes.
//
// The group (of a rank's process: actors/supervisor/rank_life.h):
//
//             AwaitsRanks          Ready
//   starting ------------> forming ------> serving
//                           ^  |              |     a rank is lost or the head gave the group up:
//      what was condemned   |  |              |     its ranks are told to leave or killed
//      is dead              |  `------+-------'
//                           |         v
//                           +------ losing          the epoch counts on
//                           |         | lost too often (RestartPacer)
//                           |         v
//                           `---- backing_off
//
//   any --the head is lost--> starting (ranks are killed)         any --stop--> stopping --all dead--> stopped
//   starting, forming --lost before the server ever served--> stopping
//
// A child is pinged with every beat. One that is silent for kSilentBeats is killed, the head like a rank. The head's answers
// go through its actors, so that a deadlock there is noticed, too.
#pragma once

#include <chrono>
#include <cstdint>
#include <functional>
#include <map>
#include <set>
#include <string>
#include <utility>

#include "actors/supervisor/process_keeper.h"
#include "actors/supervisor/rank_life.h"
#include "actors/supervisor/restart_pacer.h"
#include "actors/wire/control_message.h"
#include "actors/wire/options.h"

namespace lorikeet::actors {

class Supervision {
 public:
  using ChildId = Processes::ChildId;
  using TimePoint = std::chrono::steady_clock::time_point;
  using Duration = std::chrono::milliseconds;

  static constexpr int kSilentBeats = 10;                // after which a child is taken for stopped
  static constexpr Duration kStartPatience{20'000};      // for a child's first word
  static constexpr Duration kProgressPatience{120'000};  // for the next one of any, while the group forms
  static constexpr Duration kLeavePatience{5'000};
  static constexpr Duration kDeathPatience{5'000};  // for the kernel to end what was killed
  static constexpr Duration kStopPatience{5'000};   // for the head, beyond the drain timeout

  enum class State : uint8_t { starting, forming, serving, losing, backing_off, stopping, stopped };

  struct Callbacks {
    std::function<void(const std::string&)> progress;
    std::function<void(int32_t rank, int32_t done, int32_t total)> loading;  // layers
    std::function<void(const control::Ready&)> ready;                        // once
    std::function<void(int status)> stopped;          // once; all children are dead or left behind
    std::function<void(const std::string&)> failure;  // what went wrong, as a sentence
  };

  // processes outlives it.
  Supervision(ServerOptions options, Processes& processes, Callbacks callbacks)
      : options_(std::move(options)), processes_(processes), callbacks_(std::move(callbacks)) {}

  void start(TimePoint now);
  void said(ChildId child, ChildReport& report, TimePoint now);
  void exited(ChildId child, const std::string& how, bool on_purpose, int signal, TimePoint now);
  void stop(TimePoint now);  // a second time: at once
  void tick(TimePoint now);  // often: with every beat (options.heartbeat_ms), and twice a second

  State state() const { return state_; }
  uint64_t epoch() const { return epoch_; }

 private:
  // How well the cause of a loss is known, weakest first: what the head reports of a rank; what a rank says of itself
  // (perhaps only that a peer is gone); the death of a process that we did not kill.
  enum class Evidence { reported, words, death };

  struct Child {
    int32_t rank = -1;  // -1: the head
    RankState state = RankState::starting;
    TimePoint started;
    TimePoint since;             // it is in this state
    uint64_t told_of_epoch = 0;  // that it has been told to leave its group for
    int silent_beats = 0;
    bool has_spoken = false;
    bool has_served = false;
    std::string last_words;
    bool failed_by_itself = false;
  };
  struct Loss {  // of the last group, until the next one is started
    std::string why;
    Evidence evidence = Evidence::reported;
    bool by_rank = false;
    bool was_stopped = false;  // somebody had stopped a rank (SIGSTOP)
    bool known = false;
  };

  void spawn(int32_t rank, TimePoint now);
  void start_missing_ranks(TimePoint now);
  void take(ChildId id, Child& child, const control::AwaitsRanks&, TimePoint now);
  void take(ChildId id, Child& child, const control::Progress& progress, TimePoint now);
  void take(ChildId id, Child& child, const control::Loading& loading, TimePoint now);
  void take(ChildId id, Child& child, control::Failed& failed, TimePoint now);
  void take(ChildId id, Child& child, const control::Ready& ready, TimePoint now);
  void take(ChildId id, Child& child, const control::GroupLost& lost, TimePoint now);
  void take(ChildId id, Child& child, const control::Alive&, TimePoint now);
  void take(ChildId id, Child& child, const control::HasLeft& left, TimePoint now);
  // Handled by the process keeper.
  void take(ChildId, Child&, const control::HoldRegion&, TimePoint) {}
  void take(ChildId, Child&, const control::DropRegions&, TimePoint) {}
  void happen(ChildId id, Child& child, RankEvent event, TimePoint now);
  void lose_group(const std::string& why, Evidence evidence, bool by_rank, const std::set<int32_t>& condemned,
                  TimePoint now);
  void lose_head(const std::string& why, TimePoint now);
  void go_on(TimePoint now);
  void wait_or_begin(TimePoint now);
  void begin_epoch(TimePoint now);
  void look_at(ChildId id, Child& child, bool is_beat, TimePoint now);
  void stop_with(int status, TimePoint now);
  void kill_all(TimePoint now);
  void stop_if_alone();
  std::set<int32_t> all_ranks() const;

  const ServerOptions options_;
  Processes& processes_;
  const Callbacks callbacks_;
  State state_ = State::starting;
  std::map<ChildId, Child> children_;  // that are neither dead nor left behind
  uint64_t epoch_ = 1;
  ChildId head_ = 0;       // 0: no head awaits ranks
  std::string address_;    // of the clients' socket; empty: has never served
  int32_t http_port_ = 0;  // of the head's HTTP door; 0: it has none
  Loss loss_;
  RestartPacer pacer_;
  Duration served_for_{0};  // by the group that was lost last
  TimePoint served_since_, start_again_, last_progress_, stop_until_, next_beat_;
  int status_ = 0;
};

}  // namespace lorikeet::actors
