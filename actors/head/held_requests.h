// The requests that the engine does not have yet: their adapter is being read, the ranks compile their grammar, or there
// is no group. Every call costs the same however many are held.
#pragma once

#include <cstdint>
#include <map>
#include <memory>
#include <unordered_map>
#include <vector>

#include "engine/request.h"

namespace lorikeet::actors {

class HeldRequests {
 public:
  using Request = std::shared_ptr<engine::Request>;

  // A request whose adapter's content is not known yet; its adapter is a name.
  void add_unresolved(Request request);
  // The request with its content's digest; null if it was cancelled meanwhile.
  Request resolved(engine::SequenceId id, const std::string& digest);

  // A request whose grammar the ranks do not have yet.
  void add_without_grammar(Request request);
  Request take_without_grammar(engine::SequenceId id);  // null if it was cancelled meanwhile
  void group_lost();                                    // requests that wait for a grammar now wait for the next group

  // A request that only waits for the group.
  void add_waiting(Request request);
  std::vector<Request> take_waiting();  // in order of arrival

  // Forgets a request. Returns whether there was one.
  bool erase(engine::SequenceId id);

  size_t unresolved() const { return unresolved_.size(); }
  size_t size() const { return unresolved_.size() + without_grammar_.size() + waiting_.size(); }

 private:
  std::unordered_map<engine::SequenceId, Request> unresolved_;
  std::map<engine::SequenceId, Request> without_grammar_;
  std::map<uint64_t, Request> waiting_;                       // by number of arrival
  std::unordered_map<engine::SequenceId, uint64_t> numbers_;  // of those that wait
  uint64_t arrivals_ = 0;
};

}  // namespace lorikeet::actors
