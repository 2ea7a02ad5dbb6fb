#include "actors/head/live_requests.h"

#include <glog/logging.h>

#include <algorithm>

namespace lorikeet::actors {

LiveRequest& LiveRequests::add(engine::SequenceId id, uint64_t client, const std::string& name, TextStream text,
                               std::optional<int32_t> index) {
  Ids& ids = names_[client][name];
  CHECK_EQ(ids.size(), static_cast<size_t>(index.value_or(0)));
  ids.push_back(id);
  LiveRequest& request = requests_.emplace(id, LiveRequest(std::move(text))).first->second;
  request.client = client;
  request.name = name;
  request.index = index;
  request.delta.id = name;
  request.delta.index = index;
  return request;
}

LiveRequest* LiveRequests::find(engine::SequenceId id) {
  const auto it = requests_.find(id);
  return it == requests_.end() ? nullptr : &it->second;
}

std::vector<engine::SequenceId> LiveRequests::choices(uint64_t client, const std::string& name) const {
  const auto names = names_.find(client);
  if (names == names_.end()) return {};
  const auto it = names->second.find(name);
  return it == names->second.end() ? Ids{} : it->second;
}

std::optional<engine::SequenceId> LiveRequests::find(uint64_t client, const std::string& name) const {
  const Ids ids = choices(client, name);
  if (ids.empty()) return std::nullopt;
  return ids.front();
}

void LiveRequests::erase(engine::SequenceId id) {
  const auto it = requests_.find(id);
  if (it == requests_.end()) return;
  const auto names = names_.find(it->second.client);
  if (names != names_.end() && !it->second.abandoned) {
    const auto ids = names->second.find(it->second.name);
    ids->second.erase(std::find(ids->second.begin(), ids->second.end(), id));
    if (ids->second.empty()) names->second.erase(ids);
    if (names->second.empty()) names_.erase(names);
  }
  requests_.erase(it);
}

std::vector<engine::SequenceId> LiveRequests::abandon(uint64_t client, Client why) {
  std::vector<engine::SequenceId> all;
  const auto names = names_.find(client);
  if (names == names_.end()) return all;
  for (const auto& [name, ids] : names->second) all.insert(all.end(), ids.begin(), ids.end());
  for (const engine::SequenceId id : all) {
    LiveRequest& request = requests_.at(id);
    request.abandoned = true;
    request.client_gone = why == Client::left;
  }
  names_.erase(names);
  return all;
}

std::vector<engine::SequenceId> LiveRequests::abandon(uint64_t client, const std::string& name) {
  const Ids ids = choices(client, name);
  if (ids.empty()) return ids;
  for (const engine::SequenceId id : ids) requests_.at(id).abandoned = true;
  const auto names = names_.find(client);
  names->second.erase(name);
  if (names->second.empty()) names_.erase(names);
  return ids;
}

std::vector<engine::SequenceId> LiveRequests::ids() const {
  std::vector<engine::SequenceId> ids;
  for (const auto& [id, request] : requests_) ids.push_back(id);
  std::sort(ids.begin(), ids.end());
  return ids;
}

}  // namespace lorikeet::actors
