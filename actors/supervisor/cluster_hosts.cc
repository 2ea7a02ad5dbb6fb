// The part of ClusterProcesses that admits hosts, hears them and loses them.
#include <fmt/format.h>
#include <openssl/crypto.h>
#include <openssl/rand.h>

#include <algorithm>
#include <array>
#include <utility>
#include <variant>

#include "actors/supervisor/cluster_processes.h"
#include "comm/codec/codec.h"

namespace lorikeet::actors {
namespace {

constexpr size_t kMaxHosts = 1024;
constexpr size_t kMaxHostDevices = 64;
constexpr size_t kSecretBytes = 16;

std::string make_secret() {
  std::array<unsigned char, kSecretBytes> bytes{};
  if (RAND_bytes(bytes.data(), bytes.size()) != 1) return "";
  std::string text;
  for (const unsigned char byte : bytes) text += fmt::format("{:02x}", byte);
  return text;
}

// For people: as a name that does no harm to a terminal.
void tidy(std::string& text) {
  constexpr size_t kMost = 256;
  if (text.size() > kMost) text.resize(kMost);
  std::replace_if(
      text.begin(), text.end(), [](unsigned char c) { return c < 0x20 || c == 0x7F; }, '?');
}

bool is_secret(const std::string& one, const std::string& other) {
  return one.size() == other.size() && CRYPTO_memcmp(one.data(), other.data(), one.size()) == 0;
}

}  // namespace

// Called by the listener, on its thread.
void ClusterProcesses::admit(comm::TlsConnection connection, const std::vector<uint8_t>& words) {
  auto request = comm::decode<JoinRequest>(words);
  if (!request) return;
  std::visit([&](auto& what) { take(std::move(connection), what); }, *request);
}

std::string ClusterProcesses::why_not(const host::Join& join) const {
  const HostDevices& lent = join.devices;
  if (join.version != options_.version) {
    return fmt::format("the head is lorikeet {}, and this host has {}", options_.version, join.version);
  }
  if (lent.kind != device_) return fmt::format("the ranks compute on {}, and this host lends {}", device_, lent.kind);
  if (lent.numbers.empty() || lent.numbers.size() > kMaxHostDevices) {
    return fmt::format("a host lends 1 to {} devices, not {}", kMaxHostDevices, lent.numbers.size());
  }
  const size_t devices = lent.numbers.size();
  if ((!lent.memory_bytes.empty() && lent.memory_bytes.size() != devices) ||
      (!lent.links.empty() && lent.links.size() != devices * devices)) {
    return "what it says of its devices' memory and links does not fit their number";
  }
  if (lent.model.find(", ") != std::string::npos && !options_.mixed_devices) {
    return fmt::format("it lends several models of devices: {}; --mixed-devices allows it", lent.model);
  }
  if (hosts_.size() >= kMaxHosts) return fmt::format("there are {} hosts already", kMaxHosts);
  for (const auto& [id, host] : hosts_) {
    const HostDevices& other = host.about.devices;
    if (other.numbers.empty() || other.model == lent.model || options_.mixed_devices) continue;
    return fmt::format("{} lends {}, and this host {}; --mixed-devices allows it", host.about.name, other.model,
                       lent.model);
  }
  return "";
}

void ClusterProcesses::take(comm::TlsConnection connection, host::Join& join) {
  auto ends = comm::TlsRelay::make_ends();
  if (!ends) return;
  if (join.address.empty()) join.address = connection.peer_address;
  for (std::string* text : {&join.name, &join.address, &join.version, &join.devices.kind, &join.devices.model})
    tidy(*text);
  const std::string local = connection.local_address;
  const std::string certified = connection.peer_name;
  const comm::TlsRelay::Id relay = door_.relay->add(std::move(connection), std::move(ends->first));
  std::vector<Exit> exits;
  std::string said, placed_now;
  {
    const std::lock_guard lock(mutex_);
    host::Admitted answer{why_not(join), make_secret(), epoch_, static_cast<int32_t>(beat_.count())};
    if (stopping_) answer.refused = "the server is going away";
    if (answer.link.empty()) answer.refused = "the head has no random numbers";
    auto link = std::make_unique<HostLink>(std::move(ends->second), beat_);
    const bool sent = link->channel().send(HostOrder(answer)).has_value();
    if (!answer.refused.empty() || !sent) {
      said = fmt::format("host {} ({}) was refused: {}", join.name, join.address, answer.refused);
    } else {
      // The same process has connected again: its old link is dead.
      for (const auto& [id, host] : hosts_) {
        if (!host.link || host.about.instance != join.instance) continue;
        exits = remove_host(id, "it has joined anew");
        break;
      }
      const HostId id = ++last_host_;
      Host& host = hosts_[id];
      host.users.assign(join.devices.numbers.size(), 0);
      host.secret = answer.link;
      host.relay = relay;
      said = fmt::format("host {} ({}, certificate {}) has joined with {} devices{}", join.name, join.address,
                         certified, join.devices.numbers.size(), join.spare ? ", in reserve" : "");
      host.about = std::move(join);
      host.link = std::move(link);
      if (own_address_.empty()) own_address_ = local;
      host.link->start({[this, id](ControlChannel& channel) { return hear(id, channel); },
                        [](ControlChannel& channel) { (void)channel.send(HostOrder(host::Beat{})); },
                        [this, id](const std::string& why) { host_lost(id, why); }});
      if (complete_) {
        for (auto& [child_id, child] : children_) {
          if (child.where == Where::waits) place(child_id, child);
        }
      } else {
        start_if_complete(exits, placed_now);
      }
    }
  }
  callbacks_.progress(said);
  if (!placed_now.empty()) callbacks_.progress(placed_now);
  tell_exits(exits);
}

// Only for the rank that was given to the host, in its epoch, once.
void ClusterProcesses::take(comm::TlsConnection connection, const host::ConnectRank& rank) {
  const std::lock_guard lock(mutex_);
  Child* child = find(rank.child);
  if (child == nullptr || child->where != Where::there || child->relay != 0 || child->start.epoch != rank.epoch ||
      child->start.rank != rank.rank) {
    return;
  }
  const Host& host = hosts_.at(child->host);
  const Child* head = find(child->head);
  auto ends = comm::TlsRelay::make_ends();
  if (!is_secret(host.secret, rank.link) || head == nullptr || !ends) return;
  child->relay = door_.relay->add(std::move(connection), std::move(ends->first));
  keeper_.send(head->kept, control::RankConnection{rank.epoch, rank.rank}, ends->second.get());
}

// Only for a host of ours, which is known by its link's secret.
void ClusterProcesses::take(comm::TlsConnection connection, const host::ReadCheckpoint& reader) {
  const std::lock_guard lock(mutex_);
  for (const auto& [id, host] : hosts_) {
    if (!host.link || !is_secret(host.secret, reader.link)) continue;
    checkpoint_.serve(std::move(connection), id);
    return;
  }
}

// On the link's thread.
bool ClusterProcesses::hear(HostId id, ControlChannel& channel) {
  auto report = channel.receive_host_report();
  return report && *report && take(id, **report);
}

// False: the host has sent something that it must not.
bool ClusterProcesses::take(HostId id, HostReport& report) {
  if (std::holds_alternative<host::Beat>(report)) return true;
  ChildId of = 0;
  std::visit(
      [&](const auto& what) {
        if constexpr (!std::is_same_v<std::decay_t<decltype(what)>, host::Beat>) of = what.child;
      },
      report);
  std::vector<Exit> exits;
  std::string news;
  {
    const std::lock_guard lock(mutex_);
    Child* child = find(of);
    if (child == nullptr) return true;  // it has ended, and the host did not know yet
    if (child->where != Where::there || child->host != id) return false;
    if (auto* state = std::get_if<host::RankState>(&report)) {
      child->is_stopped = state->is_stopped;
      child->fetches = state->fetches;
      tidy(state->description);
      if (state->fetches && state->description != child->description) {
        news = fmt::format("rank {} on {} {}", child->start.rank, hosts_.at(id).about.name, state->description);
      }
      child->description = std::move(state->description);
    } else if (auto* exited = std::get_if<host::RankExited>(&report)) {
      exits.push_back({of, std::move(exited->how), exited->on_purpose, exited->signal});
      door_.relay->cut(child->relay);
      release(*child, of);
      children_.erase(of);
    }
  }
  if (!news.empty()) callbacks_.progress(news);
  if (auto* said = std::get_if<host::RankSaid>(&report)) callbacks_.said(of, std::move(said->report));
  tell_exits(exits);
  return true;
}

// On the link's thread, as its last call.
void ClusterProcesses::host_lost(HostId id, const std::string& why) {
  std::vector<Exit> exits;
  std::string name;
  {
    const std::lock_guard lock(mutex_);
    const auto host = hosts_.find(id);
    if (host == hosts_.end() || stopping_) return;
    name = host->second.about.name;
    exits = remove_host(id, why);
  }
  callbacks_.progress(fmt::format("host {} is lost: {}", name, why));
  tell_exits(exits);
}

std::vector<ClusterProcesses::Exit> ClusterProcesses::remove_host(HostId id, const std::string& why) {
  std::vector<Exit> exits;
  auto removed = hosts_.extract(id);
  Host& host = removed.mapped();
  door_.relay->cut(host.relay);
  checkpoint_.end(id);
  host.link->end();
  lost_links_.push_back(std::move(host.link));
  for (auto it = children_.begin(); it != children_.end();) {
    const Child& child = it->second;
    if (child.where == Where::there && child.host == id) {
      door_.relay->cut(child.relay);
      exits.push_back({it->first, fmt::format("is lost with its host {}: {}", host.about.name, why), child.killed, 0});
      it = children_.erase(it);
    } else {
      ++it;
    }
  }
  changed_.notify_all();
  return exits;
}

// Ends what links have left, and the wait for hosts that do not come.
void ClusterProcesses::watch() {
  const auto deadline = std::chrono::steady_clock::now() + options_.join_timeout;
  std::unique_lock lock(mutex_);
  while (!stopping_) {
    const auto has_work = [this] { return stopping_ || !lost_links_.empty(); };
    const bool waits_for_hosts = !complete_ && no_place_.empty();
    if (!waits_for_hosts) {
      changed_.wait(lock, has_work);
    } else if (!changed_.wait_until(lock, deadline, [&] { return has_work() || complete_ || !no_place_.empty(); })) {
      std::vector<Exit> exits;
      give_up_waiting(
          fmt::format("not all of {} hosts have joined in {} s", options_.nnodes, options_.join_timeout.count()),
          exits);
      changed_.notify_all();
      lock.unlock();
      tell_exits(exits);
      lock.lock();
    }
    std::vector<std::unique_ptr<HostLink>> links;
    links.swap(lost_links_);
    lock.unlock();
    links.clear();
    lock.lock();
  }
}

}  // namespace lorikeet::actors
