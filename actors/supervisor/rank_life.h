// What becomes of a rank's process, as the supervisor sees it: a table of (state, event).
//
//              spoke             group_serves
//   starting ---------> loading --------------> serving <-----------------.
//      |                   |                       |                      | group_serves
//      `-------------------+-----------+-----------'                      |
//                                      | group_lost: told to leave        |
//                                      v              has_left            |
//                                   leaving -----------------------> joining       (group_lost: leaving, once more;
//                                                                                     group_serves may overtake has_left)
//
//   any of these --condemned, overdue--> dying (killed) --exited--> dead
//                                          `--overdue--> abandoned (the kernel does not end it; it is left behind)
//   any of these --exited--> dead
//
// A survivor leaves the collective by abort, says so, and keeps process, weights and KV cache; it joins the next epoch.
// One that is silent for too many beats is overdue, whatever its state.
#pragma once

#include <cstddef>
#include <cstdint>

namespace lorikeet::actors {

enum class RankState : uint8_t { starting, loading, serving, leaving, joining, dying, dead, abandoned };
enum class RankEvent : uint8_t { spoke, group_serves, group_lost, has_left, condemned, overdue, exited };
enum class RankAction : uint8_t { none, tell_to_leave, kill, abandon };

struct RankStep {
  RankState next;
  RankAction action = RankAction::none;
  bool operator==(const RankStep&) const = default;
};

// What an event leads to; an event without a meaning in a state changes nothing.
RankStep step_of(RankState state, RankEvent event);

constexpr const char* name_of(RankState state) {
  constexpr const char* names[] = {"starting", "loading", "serving", "leaving",
                                   "joining",  "dying",   "dead",    "abandoned"};
  return names[static_cast<size_t>(state)];
}

// Its process may still do something.
constexpr bool is_alive(RankState state) {
  return state < RankState::dying;
}

}  // namespace lorikeet::actors
