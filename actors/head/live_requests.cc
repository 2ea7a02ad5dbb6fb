#include "actors/head/live_requests.h"

#include <glog/logging.h>

#include <algorithm>

namespace lorikeet::actors {

LiveRequest& LiveRequests::add(engine::SequenceId id, uint64_t client, const std::string& name, TextStream text) {
  CHECK(names_[client].emplace(name, id).second);
  LiveRequest& request = requests_.emplace(id, LiveRequest(std::move(text))).first->second;
  request.client = client;
  request.name = name;
  request.delta.id = name;
  return request;
}

LiveRequest* LiveRequests::find(engine::SequenceId id) {
  const auto it = requests_.find(id);
  return it == requests_.end() ? nullptr : &it->second;
}

std::optional<engine::SequenceId> LiveRequests::find(uint64_t client, const std::string& name) const {
  const auto names = names_.find(client);
  if (names == names_.end()) return std::nullopt;
  const auto it = names->second.find(name);
  if (it == names->second.end()) return std::nullopt;
  return it->second;
}

void LiveRequests::erase(engine::SequenceId id) {
  const auto it = requests_.find(id);
  if (it == requests_.end()) return;
  if (const auto names = names_.find(it->second.client); names != names_.end() && !it->second.abandoned) {
    names->second.erase(it->second.name);
    if (names->second.empty()) names_.erase(names);
  }
  requests_.erase(it);
}

std::vector<engine::SequenceId> LiveRequests::abandon(uint64_t client) {
  std::vector<engine::SequenceId> ids;
  const auto names = names_.find(client);
  if (names == names_.end()) return ids;
  for (const auto& [name, id] : names->second) {
    requests_.at(id).abandoned = true;
    ids.push_back(id);
  }
  names_.erase(names);
  return ids;
}

std::vector<engine::SequenceId> LiveRequests::ids() const {
  std::vector<engine::SequenceId> ids;
  for (const auto& [id, request] : requests_) ids.push_back(id);
  std::sort(ids.begin(), ids.end());
  return ids;
}

}  // namespace lorikeet::actors
