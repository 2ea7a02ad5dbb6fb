#include <gmock/gmock.h>

#include <functional>

#include "tests/actors/supervisor/supervised.h"

namespace lorikeet::actors {
namespace {

using State = Supervision::State;

// ---- every state of the group, every event

struct Event {
  const char* name;
  std::function<void(Supervised&)> happen;
};

uint64_t a_live_rank(const Supervised& server) {
  for (uint64_t child = server.processes.started.size(); child > 0; --child) {
    if (server.processes.started[child - 1].rank >= 0) return child;
  }
  return 0;
}

std::vector<Event> events() {
  return {{"awaits ranks", [](Supervised& s) { s.say(s.state() == State::starting ? 4 : 1, control::AwaitsRanks{}); }},
          {"ready", [](Supervised& s) { s.serve_again(); }},
          {"group lost",
           [](Supervised& s) {
             s.say(1, control::GroupLost{s.decides->epoch(), "a link", false, {}});
           }},
          {"a rank exits", [](Supervised& s) { s.exit(a_live_rank(s)); }},
          {"the head exits", [](Supervised& s) { s.exit(s.state() == State::starting ? 4 : 1); }},
          {"stop", [](Supervised& s) { s.decides->stop(s.now); }},
          {"tick", [](Supervised& s) { s.decides->tick(s.now); }}};
}

void enter(Supervised& server, State state) {
  server.serve();
  switch (state) {
    case State::starting:
      server.exit(1);
      break;
    case State::forming:
      server.exit(3);
      break;
    case State::serving:
      break;
    case State::losing:
      server.processes.ending = {3};
      server.say(1, control::GroupLost{1, "rank 1 is gone", false, {}});
      break;
    case State::backing_off:
      for (int loss = 0; loss <= static_cast<int>(RestartPacer::kBurst); ++loss) server.exit(a_live_rank(server));
      break;
    case State::stopping:
      server.decides->stop(server.now);
      break;
    case State::stopped:
      server.decides->stop(server.now);
      for (const uint64_t child : {1, 2, 3}) server.exit(child);
      break;
  }
  ASSERT_EQ(server.state(), state);
}

TEST(Supervision, GoesWhereTheDiagramSaysFromEveryStateOfTheGroupAtEveryEvent) {
  using S = State;
  const std::pair<S, std::vector<S>> table[] = {
      // awaits ranks, ready, group lost, a rank exits, the head exits, stop, tick
      {S::starting, {S::forming, S::starting, S::starting, S::starting, S::starting, S::stopping, S::starting}},
      {S::forming, {S::forming, S::serving, S::forming, S::forming, S::starting, S::stopping, S::forming}},
      {S::serving, {S::serving, S::serving, S::forming, S::forming, S::starting, S::stopping, S::serving}},
      {S::losing, {S::losing, S::losing, S::losing, S::forming, S::starting, S::stopping, S::losing}},
      {S::backing_off,
       {S::backing_off, S::backing_off, S::backing_off, S::backing_off, S::backing_off, S::stopping, S::backing_off}},
      {S::stopping, {S::stopping, S::stopping, S::stopping, S::stopping, S::stopping, S::stopping, S::stopping}},
      {S::stopped, {S::stopped, S::stopped, S::stopped, S::stopped, S::stopped, S::stopped, S::stopped}}};
  for (const auto& [from, to] : table) {
    const auto all = events();
    ASSERT_EQ(all.size(), to.size());
    for (size_t i = 0; i < all.size(); ++i) {
      SCOPED_TRACE(testing::Message() << "state " << static_cast<int>(from) << ": " << all[i].name);
      Supervised server;
      ASSERT_NO_FATAL_FAILURE(enter(server, from));
      all[i].happen(server);
      EXPECT_EQ(server.state(), to[i]);
    }
  }
}

}  // namespace
}  // namespace lorikeet::actors
