#include "actors/supervisor/cluster_processes.h"

#include <fmt/format.h>

#include <algorithm>
#include <utility>

#include "actors/wire/host_name.h"
#include "comm/cluster/interfaces.h"
#include "comm/cluster/keys.h"
#include "comm/codec/codec.h"

namespace lorikeet::actors {
Result<ClusterDoor> open_cluster(const ClusterOptions& options) {
  ClusterDoor door;
  auto context = comm::TlsContext::load(options.directory, comm::ClusterRole::head);
  if (!context) return tl::unexpected(context.error());
  const auto token =
      comm::read_join_token(options.token_file.empty() ? options.directory + "/token" : options.token_file);
  if (!token) return tl::unexpected(token.error());
  if (!options.interface_name.empty()) {
    auto address = comm::address_of_interface(options.interface_name);
    if (!address) return tl::unexpected(address.error());
    door.address = *std::move(address);
  }
  auto relay = comm::TlsRelay::start();
  if (!relay) return tl::unexpected(relay.error());
  door.relay = *std::move(relay);
  auto listener = comm::TlsListener::open(options.master_addr, options.master_port, *std::move(context), *token);
  if (!listener) return tl::unexpected(listener.error());
  door.listener = *std::move(listener);
  return door;
}

ClusterProcesses::ClusterProcesses(ClusterOptions options, const ServerOptions& server, ClusterDoor door,
                                   Callbacks callbacks, std::string program)
    : options_(std::move(options)),
      ranks_(server.tensor_parallel_size),
      device_(server.device),
      beat_(server.heartbeat_ms),
      callbacks_(std::move(callbacks)),
      door_(std::move(door)),
      own_address_(door_.address),
      checkpoint_(server.model),
      keeper_(keeper_callbacks(), std::move(program)) {
  Host& own = hosts_[kOwnHost];
  own.about.name = host_name();
  own.about.devices = options_.devices;
  own.users.assign(options_.devices.numbers.size(), 0);
  if (options_.nnodes > 1) {
    const int32_t others = options_.nnodes - 1;
    callbacks_.progress(fmt::format("{} to join at port {}",
                                    others == 1 ? "one host is" : fmt::format("{} hosts are", others), port()));
  }
  watch_ = std::thread([this] { watch(); });
  door_.listener->start({[this](comm::TlsConnection connection, const std::vector<uint8_t>& words) {
                           admit(std::move(connection), words);
                         },
                         [this](const std::string& line) { callbacks_.progress(line); }});
}

ClusterProcesses::~ClusterProcesses() {
  door_.listener.reset();
  std::vector<std::unique_ptr<HostLink>> links;
  {
    const std::lock_guard lock(mutex_);
    stopping_ = true;
    for (auto& [id, host] : hosts_) {
      if (host.link) links.push_back(std::move(host.link));
    }
    for (auto& link : lost_links_) links.push_back(std::move(link));
    changed_.notify_all();
  }
  links.clear();  // with its link, a worker ends its ranks
  watch_.join();
}

// ---- as Processes

Processes::ChildId ClusterProcesses::spawn(ChildStart start, ChildId head) {
  std::vector<Exit> exits;
  std::string said;
  ChildId id = 0;
  {
    const std::lock_guard lock(mutex_);
    id = ++last_child_;
    epoch_ = std::max(epoch_, start.epoch);
    Child& child = children_[id];
    child.start = std::move(start);
    child.head = head;
    if (child.start.rank < 0) {
      child.where = Where::here;
      child.kept = keeper_.spawn(child.start, 0);
      kept_[child.kept] = id;
    } else if (complete_) {
      place(id, child);
    } else if (no_place_.empty()) {
      start_if_complete(exits, said);
    } else {
      give_up_waiting(std::string(no_place_), exits);
    }
  }
  if (!said.empty()) callbacks_.progress(said);
  tell_exits(exits);
  return id;
}

ClusterProcesses::Child* ClusterProcesses::find(ChildId id) {
  const auto it = children_.find(id);
  return it == children_.end() ? nullptr : &it->second;
}

// A host that has not taken an order, or only a part of it, is lost.
void ClusterProcesses::send(HostId to, const HostOrder& order) {
  HostLink* link = hosts_.at(to).link.get();
  if (link != nullptr && !link->channel().send(order)) link->end();
}

void ClusterProcesses::tell(ChildId id, const ChildOrder& order) {
  const std::lock_guard lock(mutex_);
  const Child* child = find(id);
  if (child == nullptr) return;
  if (child->where == Where::here) keeper_.tell(child->kept, order);
  if (child->where == Where::there) send(child->host, host::TellRank{id, order});
}

void ClusterProcesses::kill(ChildId id) {
  std::vector<Exit> exits;
  {
    const std::lock_guard lock(mutex_);
    Child* child = find(id);
    if (child == nullptr) return;
    child->killed = true;
    if (child->where == Where::here) {
      keeper_.kill(child->kept);
    } else if (child->where == Where::there) {
      send(child->host, host::KillRank{id});
    } else {
      exits.push_back({id, "was not wanted any more", true, 0});
      children_.erase(id);
    }
  }
  tell_exits(exits);
}

bool ClusterProcesses::is_stopped(ChildId id) {
  const std::lock_guard lock(mutex_);
  const Child* child = find(id);
  if (child == nullptr) return false;
  return child->where == Where::here ? keeper_.is_stopped(child->kept) : child->is_stopped;
}

// For a rank on another host: its worker reports the death soon enough. For a child that is gone: `exited` is on its way.
bool ClusterProcesses::is_ending(ChildId id) {
  const std::lock_guard lock(mutex_);
  const Child* child = find(id);
  return child == nullptr || (child->where == Where::here && keeper_.is_ending(child->kept));
}

std::string ClusterProcesses::describe(ChildId id) {
  const std::lock_guard lock(mutex_);
  const Child* child = find(id);
  if (child == nullptr) return "no process";
  if (child->where == Where::here) return keeper_.describe(child->kept);
  if (child->where == Where::waits) return "it waits for a host";
  const std::string& host = hosts_.at(child->host).about.name;
  return child->description.empty() ? "on " + host : fmt::format("{} on {}", child->description, host);
}

bool ClusterProcesses::awaits_host(ChildId id) {
  const std::lock_guard lock(mutex_);
  const Child* child = find(id);
  return child != nullptr && (child->where == Where::waits || child->fetches);
}

// On every host: memory of an earlier process may be on any that had the rank.
void ClusterProcesses::drop_regions(int32_t rank) {
  const std::lock_guard lock(mutex_);
  keeper_.drop_regions(rank);
  for (const auto& known : hosts_) send(known.first, host::DropRegions{rank});
}

Result<std::string> ClusterProcesses::wait_for_placement() {
  std::unique_lock lock(mutex_);
  const bool in_time = changed_.wait_for(lock, options_.join_timeout, [this] {
    std::vector<Exit> exits;
    std::string said;
    if (!complete_ && no_place_.empty()) start_if_complete(exits, said);
    return complete_ || !no_place_.empty();
  });
  if (!in_time) return fail("not all of {} hosts have joined in {} s", options_.nnodes, options_.join_timeout.count());
  if (!complete_) return fail("{}", no_place_);
  return placement_table(placed());
}

// ---- children of this host

ProcessKeeper::Callbacks ClusterProcesses::keeper_callbacks() {
  const auto id_of = [this](ProcessKeeper::ChildId kept) {
    const std::lock_guard lock(mutex_);
    const auto it = kept_.find(kept);
    return it == kept_.end() ? ChildId{0} : it->second;
  };
  ProcessKeeper::Callbacks callbacks;
  callbacks.said = [this, id_of](ProcessKeeper::ChildId kept, ChildReport report) {
    callbacks_.said(id_of(kept), std::move(report));
  };
  callbacks.exited = [this, id_of](ProcessKeeper::ChildId kept, std::string how, bool on_purpose, int signal) {
    const ChildId id = id_of(kept);
    {
      const std::lock_guard lock(mutex_);
      kept_.erase(kept);
      if (const Child* child = find(id)) release(*child, id);
      children_.erase(id);
    }
    callbacks_.exited(id, std::move(how), on_purpose, signal);
  };
  callbacks.connect = [this, id_of](ProcessKeeper::ChildId kept, const ChildStart& start, const HeadEnds& ends) {
    const ChildId id = id_of(kept);
    const std::lock_guard lock(mutex_);
    const Child* child = find(id);
    const Child* head = child ? find(child->head) : nullptr;
    if (head) keeper_.send_ends(head->kept, start, ends);
  };
  return callbacks;
}

void ClusterProcesses::tell_exits(const std::vector<Exit>& exits) {
  for (const Exit& exit : exits) callbacks_.exited(exit.child, exit.how, exit.on_purpose, exit.signal);
}

// ---- placement

void ClusterProcesses::release(const Child& child, ChildId id) {
  const auto host = hosts_.find(child.host);
  if (host == hosts_.end()) return;
  std::replace(host->second.users.begin(), host->second.users.end(), id, ChildId{0});
}

// The ranks that wait are started once all hosts have joined; where there is no room for them, they end.
void ClusterProcesses::start_if_complete(std::vector<Exit>& exits, std::string& said) {
  const auto joined =
      std::count_if(hosts_.begin(), hosts_.end(), [](const auto& one) { return !one.second.about.spare; });
  if (complete_ || !no_place_.empty() || joined < options_.nnodes) return;
  if (auto ok = place_all(); ok) {
    complete_ = true;
    said = placement_table(placed());
    for (auto& [id, child] : children_) {
      if (child.where == Where::waits) place(id, child);
    }
  } else {
    give_up_waiting(ok.error().message, exits);
  }
  changed_.notify_all();
}

void ClusterProcesses::give_up_waiting(const std::string& why, std::vector<Exit>& exits) {
  no_place_ = why;
  for (auto it = children_.begin(); it != children_.end();) {
    if (it->second.where == Where::waits) {
      exits.push_back({it->first, "has no place: " + why, false, 0});
      it = children_.erase(it);
    } else {
      ++it;
    }
  }
}

HostRoom ClusterProcesses::room_of(const Host& host) {
  return {host.about.name, host.users.size(), host.about.spare, host.about.devices.links};
}

Result<void> ClusterProcesses::place_all() {
  std::vector<HostRoom> rooms;
  std::vector<HostId> ids;
  for (const auto& [id, host] : hosts_) {
    rooms.push_back(room_of(host));
    ids.push_back(id);
  }
  const auto slots = place_group(rooms, static_cast<size_t>(ranks_));
  if (!slots) return tl::unexpected(slots.error());
  for (size_t rank = 0; rank < slots->size(); ++rank) {
    places_[static_cast<int32_t>(rank)] = {ids[(*slots)[rank].host], (*slots)[rank].device};
  }
  return {};
}

// Starts a rank where it was before, if that is free. False: it has to wait.
bool ClusterProcesses::place(ChildId id, Child& child) {
  const int32_t rank = child.start.rank;
  const auto is_free = [this](const Place& place) {
    const auto host = hosts_.find(place.host);
    return host != hosts_.end() && host->second.users[place.device] == 0;
  };
  const auto last = places_.find(rank);
  if (last == places_.end() || !is_free(last->second)) {
    std::vector<HostRoom> rooms;
    std::vector<HostId> ids;
    std::vector<size_t> free, of_group;
    for (const auto& [host_id, host] : hosts_) {
      rooms.push_back(room_of(host));
      ids.push_back(host_id);
      free.push_back(static_cast<size_t>(std::count(host.users.begin(), host.users.end(), ChildId{0})));
      of_group.push_back(host.users.size() - free.back());
    }
    const auto chosen = host_for_rank(rooms, free, of_group);
    if (!chosen) return false;
    std::vector<bool> taken;
    for (const ChildId user : hosts_.at(ids[*chosen]).users) taken.push_back(user != 0);
    places_[rank] = {ids[*chosen], device_for_rank(rooms[*chosen], taken)};
  }
  const Place& chosen = places_.at(rank);
  Host& host = hosts_.at(chosen.host);
  host.users[chosen.device] = id;
  child.host = chosen.host;
  child.device = chosen.device;
  child.start.place = rank_place(chosen);
  if (host.link) {
    start_there(id, child);
  } else {
    child.where = Where::here;
    child.kept = keeper_.spawn(child.start, child.head);
    kept_[child.kept] = id;
  }
  return true;
}

void ClusterProcesses::start_there(ChildId id, Child& child) {
  child.where = Where::there;
  host::StartRank order{id, child.start};
  // Ranks need not know clients' keys.
  order.start.options.access = {};
  order.start.options.http = {};
  send(child.host, std::move(order));
}

RankPlace ClusterProcesses::rank_place(const Place& place) const {
  const Host& host = hosts_.at(place.host);
  RankPlace to;
  to.device = host.about.devices.numbers[place.device];
  to.host = static_cast<int64_t>(place.host);
  to.ranks_on_host = static_cast<int32_t>(std::count_if(
      places_.begin(), places_.end(), [&](const auto& of_rank) { return of_rank.second.host == place.host; }));
  to.address = host.link ? host.about.address : own_address_;
  if (!host.link) to.interface_name = comm::interface_with(to.address);
  return to;
}

// What a rank reaches the others over, as its host tells of its devices.
std::string ClusterProcesses::links_of(int32_t rank) const {
  const Place& own = places_.at(rank);
  std::vector<size_t> beside;
  for (const auto& [other, place] : places_) {
    if (other != rank && place.host == own.host) beside.push_back(place.device);
  }
  const HostRoom room = room_of(hosts_.at(own.host));
  const auto worst = worst_link(room, own.device, beside);
  const bool leaves = beside.size() + 1 < places_.size();
  if (room.links.empty()) return "";
  if (!worst) return leaves ? "network" : "";
  return name_of(*worst) + (leaves ? ", network" : "");
}

std::vector<PlacedRank> ClusterProcesses::placed() const {
  std::vector<PlacedRank> all;
  for (const auto& [rank, place] : places_) {
    const auto at = hosts_.find(place.host);
    if (at == hosts_.end()) {  // lost since
      all.push_back({"lost", "-", "-"});
      continue;
    }
    const Host& host = at->second;
    const RankPlace found = rank_place(place);
    const HostDevices& lent = host.about.devices;
    std::string device = fmt::format("{} {}", lent.kind, found.device);
    if (!lent.memory_bytes.empty()) {
      constexpr double kGibibyte = 1ULL << 30;
      const auto bytes = static_cast<double>(lent.memory_bytes[place.device]);
      device += fmt::format(" ({}, {:.0f} GiB)", lent.model, bytes / kGibibyte);
    }
    all.push_back(
        {host.about.name, found.address.empty() ? "127.0.0.1" : found.address, std::move(device), links_of(rank)});
  }
  return all;
}

}  // namespace lorikeet::actors
