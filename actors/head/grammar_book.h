// Which grammars the ranks have. Each is sent to a group once, under its digest, when the first request that needs it is
// about to start, and stays on the ranks for later requests while there is room.
//
//            take_orders()         the last rank's answer         no request names it: idle
//   unsent ---------------> sent -------------------------> ready -------------------------> dropped for others
//      ^                      |  a rank cannot compile it               |
//      `----------------------`-----------------------------------------`--- the group is lost
#pragma once

#include <chrono>
#include <cstddef>
#include <cstdint>
#include <deque>
#include <list>
#include <memory>
#include <optional>
#include <string>
#include <unordered_map>
#include <utility>
#include <vector>

#include "actors/wire/wire.h"
#include "engine/ids.h"
#include "engine/sampling_params.h"
#include "kernels/base/error.h"

namespace lorikeet::actors {

// Threads: one. No call on a request's path walks over all requests or grammars.
class GrammarBook {
 public:
  using Id = engine::SequenceId;
  using TimePoint = std::chrono::steady_clock::time_point;

  // max_bytes: of compiled grammars on a rank. Beyond it idle grammars are dropped, and new ones wait.
  explicit GrammarBook(int32_t ranks, size_t max_bytes = kMaxRankGrammarBytes)
      : ranks_(static_cast<size_t>(ranks)), max_bytes_(max_bytes) {}

  // A request's grammar, until release(): its text, which becomes its digest.
  void claim(Id id, engine::AnswerRules& rules);
  void release(Id id);  // unknown ids are fine

  // Whether the ranks have the request's grammar; true for a request without one. If not, take_outcomes() names the request
  // later, unless it is released or the group is lost before that.
  bool ready(Id id);
  // Why the request must be given up: group after group was lost while its ranks compiled the grammar. Else nothing.
  std::optional<std::string> why_given_up(Id id) const;
  // The next plan uses this grammar, so it is sent first, whatever else waits. Needed only after the loss of a group.
  void require(const std::string& digest);

  void group_serves();  // ranks that have none
  void group_lost();

  // Fails where the rank was not asked for this grammar.
  Result<void> answered(int32_t rank, const GrammarCompiled& answer, TimePoint now);

  struct Outcome {
    Id id;
    std::string error;  // not empty: why the ranks do not have its grammar
  };
  std::vector<Outcome> take_outcomes() { return std::exchange(outcomes_, {}); }

  // What is to be sent to all ranks, in this order.
  std::vector<GroupOrder> take_orders(TimePoint now);

  // Since when ranks have owed an answer about a grammar; nothing: they owe none.
  std::optional<TimePoint> waits_since() const { return waits_since_; }

 private:
  enum class State : uint8_t { unsent, sent, ready };
  struct Grammar {
    GrammarText text;
    State state = State::unsent;
    int64_t claims = 0;
    bool queued = false;
    std::vector<bool> answers;  // [ranks], once it is sent
    size_t missing = 0;         // of them
    uint64_t bytes = 0;         // of the rank that needs the most
    std::string error;
    uint64_t number = 0;  // of its sending
    int losses = 0;       // of groups, while it was what ranks compiled
    std::vector<Id> waiting;
    std::optional<std::list<std::string>::iterator> idle;
  };

  void enqueue(const std::string& digest, Grammar& grammar);
  void send(Grammar& grammar, TimePoint now);
  void settle(const std::string& digest, Grammar& grammar);
  void drop(const std::string& digest);
  bool make_room();

  const size_t ranks_;
  const size_t max_bytes_;
  bool serving_ = false;
  std::unordered_map<std::string, Grammar> grammars_;  // by digest
  std::unordered_map<Id, std::string> of_request_;
  std::list<std::string> idle_;        // the latest first
  std::deque<std::string> to_send_;    // some may be gone by now
  std::vector<std::string> required_;  // before all others
  std::vector<GroupOrder> orders_;
  std::vector<Outcome> outcomes_;
  uint64_t sendings_ = 0;
  size_t on_the_way_ = 0;  // sent, and not answered by all
  size_t ready_ = 0;
  uint64_t bytes_ = 0;  // of what is ready
  std::optional<TimePoint> waits_since_;
};

}  // namespace lorikeet::actors
