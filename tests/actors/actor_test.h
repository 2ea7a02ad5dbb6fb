// Actors in a test: everything runs in the test's thread, in a fixed order, on a clock that the test moves.
#pragma once

#include <gtest/gtest.h>

#include <caf/all.hpp>
#include <caf/scheduler/test_coordinator.hpp>
#include <optional>
#include <utility>

#include "actors/wire/messages.h"

namespace lorikeet::actors {

class ActorTest : public ::testing::Test {
 protected:
  struct Config : caf::actor_system_config {
    Config() {
      add_message_types<caf::id_block::lorikeet>();
      set("scheduler.policy", caf::atom("testing"));
    }
  };

  // Sends and lets everything happen that follows.
  template <class Actor, class... Messages>
  void tell(const Actor& actor, Messages&&... messages) {
    self_->send(actor, std::forward<Messages>(messages)...);
    run();
  }

  // The same, in the name of another actor.
  template <class Source, class Actor, class Message>
  void tell_as(const Source& source, const Actor& actor, Message&& message) {
    caf::send_as(source, actor, std::forward<Message>(message));
    run();
  }

  // The answer to a request; the test fails without one.
  template <class Answer, class Actor, class... Messages>
  Answer ask(const Actor& actor, Messages&&... messages) {
    auto pending = self_->request(actor, caf::infinite, std::forward<Messages>(messages)...);
    run();
    std::optional<Answer> answer;
    pending.receive([&](Answer& got) { answer = std::move(got); },
                    [&](caf::error& error) { ADD_FAILURE() << system_.render(error); });
    return answer.value_or(Answer{});
  }

  template <class Actor>
  void end(const Actor& actor) {
    caf::anon_send_exit(actor, caf::exit_reason::user_shutdown);
    run();
  }

  void run() { coordinator_.run(); }

  void advance(std::chrono::milliseconds time) {
    coordinator_.advance_time(time);
    run();
  }

  Config config_;
  caf::actor_system system_{config_};
  caf::scheduler::test_coordinator& coordinator_ = dynamic_cast<caf::scheduler::test_coordinator&>(system_.scheduler());
  caf::scoped_actor self_{system_};
};

}  // namespace lorikeet::actors
