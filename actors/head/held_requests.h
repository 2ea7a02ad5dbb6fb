// The requests that the engine does not have yet: their adapter is being read, or the group is not there.
#pragma once

#include <deque>
#include <map>
#include <memory>
#include <optional>
#include <vector>

#include "engine/engine.h"

namespace lorikeet::actors {

class HeldRequests {
 public:
  // A request whose adapter's content is not known yet; its adapter is a name.
  void add_unresolved(std::shared_ptr<engine::Request> request);
  // The request with its content's digest; null if it was cancelled meanwhile.
  std::shared_ptr<engine::Request> resolved(engine::SequenceId id, const std::string& digest);

  // A request that only waits for the group.
  void add_waiting(std::shared_ptr<engine::Request> request) { waiting_.push_back(std::move(request)); }
  std::deque<std::shared_ptr<engine::Request>> take_waiting() { return std::exchange(waiting_, {}); }

  // Forgets a request; whether there was one.
  bool erase(engine::SequenceId id);

  size_t unresolved() const { return unresolved_.size(); }
  size_t size() const { return unresolved_.size() + waiting_.size(); }

 private:
  std::map<engine::SequenceId, std::shared_ptr<engine::Request>> unresolved_;
  std::deque<std::shared_ptr<engine::Request>> waiting_;  // in order of arrival
};

}  // namespace lorikeet::actors
