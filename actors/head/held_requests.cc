#include "actors/head/held_requests.h"

#include <utility>

namespace lorikeet::actors {

void HeldRequests::add_unresolved(std::shared_ptr<engine::Request> request) {
  const engine::SequenceId id = request->id;
  unresolved_[id] = std::move(request);
}

std::shared_ptr<engine::Request> HeldRequests::resolved(engine::SequenceId id, const std::string& digest) {
  const auto it = unresolved_.find(id);
  if (it == unresolved_.end()) return nullptr;
  std::shared_ptr<engine::Request> request = std::move(it->second);
  unresolved_.erase(it);
  request->adapter = digest;
  return request;
}

bool HeldRequests::erase(engine::SequenceId id) {
  if (unresolved_.erase(id) > 0) return true;
  return std::erase_if(waiting_, [&](const auto& request) { return request->id == id; }) > 0;
}

}  // namespace lorikeet::actors
