#include "actors/head/held_requests.h"

#include <utility>

namespace lorikeet::actors {

void HeldRequests::add_unresolved(Request request) {
  const engine::SequenceId id = request->id;
  unresolved_[id] = std::move(request);
}

HeldRequests::Request HeldRequests::resolved(engine::SequenceId id, const std::string& digest) {
  const auto it = unresolved_.find(id);
  if (it == unresolved_.end()) return nullptr;
  Request request = std::move(it->second);
  unresolved_.erase(it);
  request->adapter = digest;
  return request;
}

void HeldRequests::add_without_grammar(Request request) {
  const engine::SequenceId id = request->id;
  without_grammar_[id] = std::move(request);
}

HeldRequests::Request HeldRequests::take_without_grammar(engine::SequenceId id) {
  const auto it = without_grammar_.find(id);
  if (it == without_grammar_.end()) return nullptr;
  Request request = std::move(it->second);
  without_grammar_.erase(it);
  return request;
}

void HeldRequests::group_lost() {
  for (auto& [id, request] : std::exchange(without_grammar_, {})) add_waiting(std::move(request));
}

void HeldRequests::add_waiting(Request request) {
  numbers_[request->id] = ++arrivals_;
  waiting_.emplace(arrivals_, std::move(request));
}

std::vector<HeldRequests::Request> HeldRequests::take_waiting() {
  std::vector<Request> taken;
  taken.reserve(waiting_.size());
  for (auto& [number, request] : waiting_) taken.push_back(std::move(request));
  waiting_.clear();
  numbers_.clear();
  return taken;
}

bool HeldRequests::erase(engine::SequenceId id) {
  if (unresolved_.erase(id) > 0 || without_grammar_.erase(id) > 0) return true;
  const auto it = numbers_.find(id);
  if (it == numbers_.end()) return false;
  waiting_.erase(it->second);
  numbers_.erase(it);
  return true;
}

}  // namespace lorikeet::actors
