#include "actors/supervisor/rank_life.h"

#include <gtest/gtest.h>

#include <map>
#include <utility>

namespace lorikeet::actors {
namespace {

using S = RankState;
using E = RankEvent;
using A = RankAction;

constexpr S kStates[] = {S::starting, S::loading, S::serving, S::leaving, S::joining, S::dying, S::dead, S::abandoned};
constexpr E kEvents[] = {E::spoke, E::group_serves, E::group_lost, E::has_left, E::condemned, E::overdue, E::exited};

// Every pair that changes something. All others are nothing new.
const std::map<std::pair<S, E>, RankStep>& transitions() {
  static const std::map<std::pair<S, E>, RankStep> all = [] {
    std::map<std::pair<S, E>, RankStep> made;
    for (const S alive : {S::starting, S::loading, S::serving, S::leaving, S::joining}) {
      made[{alive, E::group_lost}] = {S::leaving, A::tell_to_leave};
      made[{alive, E::condemned}] = {S::dying, A::kill};
      made[{alive, E::overdue}] = {S::dying, A::kill};
      made[{alive, E::exited}] = {S::dead, A::none};
    }
    made[{S::starting, E::spoke}] = {S::loading, A::none};
    for (const S coming : {S::starting, S::loading, S::leaving, S::joining})
      made[{coming, E::group_serves}] = {S::serving, A::none};
    made[{S::leaving, E::has_left}] = {S::joining, A::none};
    made[{S::dying, E::exited}] = {S::dead, A::none};
    made[{S::dying, E::overdue}] = {S::abandoned, A::abandon};
    made[{S::abandoned, E::exited}] = {S::dead, A::none};
    return made;
  }();
  return all;
}

TEST(RankLife, GoesWhereTheDiagramSaysFromEveryStateAtEveryEvent) {
  for (const S state : kStates) {
    for (const E event : kEvents) {
      SCOPED_TRACE(testing::Message() << name_of(state) << ", event " << static_cast<int>(event));
      const auto known = transitions().find({state, event});
      EXPECT_EQ(step_of(state, event), known == transitions().end() ? RankStep{state} : known->second);
    }
  }
}

TEST(RankLife, EndsOnceInEveryState) {
  for (const E event : kEvents) EXPECT_EQ(step_of(S::dead, event), RankStep{S::dead});
  for (const S state : kStates)
    EXPECT_EQ(is_alive(state), state != S::dying && state != S::dead && state != S::abandoned);
}

}  // namespace
}  // namespace lorikeet::actors
