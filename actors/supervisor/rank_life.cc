#include "actors/supervisor/rank_life.h"

namespace lorikeet::actors {

RankStep step_of(RankState state, RankEvent event) {
  if (state == RankState::dead) return {state};
  if (event == RankEvent::exited) return {RankState::dead};
  if (state == RankState::abandoned) return {state};
  if (state == RankState::dying) {
    return event == RankEvent::overdue ? RankStep{RankState::abandoned, RankAction::abandon} : RankStep{state};
  }
  switch (event) {
    case RankEvent::condemned:
    case RankEvent::overdue:
      return {RankState::dying, RankAction::kill};
    case RankEvent::group_lost:
      return {RankState::leaving, RankAction::tell_to_leave};
    case RankEvent::spoke:
      return {state == RankState::starting ? RankState::loading : state};
    case RankEvent::has_left:
      return {state == RankState::leaving ? RankState::joining : state};
    case RankEvent::group_serves:
      return {RankState::serving};
    case RankEvent::exited:
      break;
  }
  return {state};
}

}  // namespace lorikeet::actors
