// The processes of a server whose ranks are on several hosts: the head is a child of this process, and so are ranks on
// this host; the others are children of workers (actors/supervisor/host_supervisor.h), started, told and killed over
// their links.
//
// A rank is not started before all hosts have joined; later it waits while its host is gone and no other has room. A host's
// reports are accepted only about the ranks that were given to it. A host that is lost takes its ranks with it: their
// connections to the head are cut here, so that nothing they still say arrives; when it connects again, it joins without
// ranks.
#pragma once

#include <condition_variable>
#include <cstdint>
#include <functional>
#include <map>
#include <memory>
#include <mutex>
#include <string>
#include <thread>
#include <vector>

#include "actors/supervisor/checkpoint_server.h"
#include "actors/supervisor/cluster_options.h"
#include "actors/supervisor/host_link.h"
#include "actors/supervisor/placement.h"
#include "actors/supervisor/process_keeper.h"
#include "actors/wire/options.h"
#include "comm/cluster/tls_listener.h"
#include "comm/cluster/tls_relay.h"

namespace lorikeet::actors {

// The head's port for hosts, open but not served yet.
struct ClusterDoor {
  std::unique_ptr<comm::TlsListener> listener;
  std::unique_ptr<comm::TlsRelay> relay;
  std::string address;  // of this host's collectives; empty: that of the first worker's connection
};
Result<ClusterDoor> open_cluster(const ClusterOptions& options);

// Threads: any.
class ClusterProcesses final : public Processes {
 public:
  // Called on several threads, one call of a child at a time.
  struct Callbacks {
    std::function<void(ChildId, ChildReport)> said;                                     // as ProcessKeeper's
    std::function<void(ChildId, std::string how, bool on_purpose, int signal)> exited;  // as ProcessKeeper's
    std::function<void(const std::string&)> progress;                                   // for people
  };

  ClusterProcesses(ClusterOptions options, const ServerOptions& server, ClusterDoor door, Callbacks callbacks,
                   std::string program = "/proc/self/exe");
  ~ClusterProcesses() override;

  ChildId spawn(ChildStart start, ChildId head) override;
  void tell(ChildId child, const ChildOrder& order) override;
  void kill(ChildId child) override;
  bool is_stopped(ChildId child) override;
  bool is_ending(ChildId child) override;
  std::string describe(ChildId child) override;
  bool awaits_host(ChildId child) override;
  void drop_regions(int32_t rank) override;

  // Waits until all hosts have joined. Returns where the ranks would be (placement_table). Errors: hosts that do not join in
  // time, or lend too little.
  Result<std::string> wait_for_placement();

  uint16_t port() const { return door_.listener->port(); }

 private:
  using HostId = uint64_t;  // in the order of joining; never reused
  static constexpr HostId kOwnHost = 0;
  struct Host {
    host::Join about;
    std::string secret;              // of its link
    std::unique_ptr<HostLink> link;  // none: this host
    comm::TlsRelay::Id relay = 0;    // of the link
    std::vector<ChildId> users;      // of its devices; 0: nobody
  };
  enum class Where { waits, here, there };
  struct Child {
    ChildStart start;
    ChildId head = 0;
    Where where = Where::waits;
    ProcessKeeper::ChildId kept = 0;  // here
    HostId host = kOwnHost;
    size_t device = 0;             // index among its host's devices; not the head's
    comm::TlsRelay::Id relay = 0;  // there, once it is connected
    bool killed = false, is_stopped = false;
    bool fetches = false;  // there: it is started once the host has its part of the checkpoint
    std::string description;
  };
  struct Place {
    HostId host = kOwnHost;
    size_t device = 0;
  };
  struct Exit {
    ChildId child = 0;
    std::string how;
    bool on_purpose = false;
    int signal = 0;
  };

  ProcessKeeper::Callbacks keeper_callbacks();
  void admit(comm::TlsConnection connection, const std::vector<uint8_t>& words);
  void take(comm::TlsConnection connection, host::Join& join);
  void take(comm::TlsConnection connection, const host::ConnectRank& rank);
  void take(comm::TlsConnection connection, const host::ReadCheckpoint& reader);
  std::string why_not(const host::Join& join) const;
  bool hear(HostId id, ControlChannel& channel);
  bool take(HostId id, HostReport& report);
  void host_lost(HostId id, const std::string& why);
  std::vector<Exit> remove_host(HostId id, const std::string& why);
  void start_if_complete(std::vector<Exit>& exits, std::string& said);
  void give_up_waiting(const std::string& why, std::vector<Exit>& exits);
  Result<void> place_all();
  bool place(ChildId id, Child& child);
  void start_there(ChildId id, Child& child);
  void send(HostId to, const HostOrder& order);
  static HostRoom room_of(const Host& host);
  RankPlace rank_place(const Place& place) const;
  std::string links_of(int32_t rank) const;
  std::vector<PlacedRank> placed() const;
  void release(const Child& child, ChildId id);
  Child* find(ChildId id);
  void tell_exits(const std::vector<Exit>& exits);
  void watch();

  const ClusterOptions options_;
  const int32_t ranks_;
  const std::string device_;
  const std::chrono::milliseconds beat_;
  const Callbacks callbacks_;
  ClusterDoor door_;
  std::mutex mutex_;  // guards what follows; callbacks are called without it
  std::string own_address_;
  bool complete_ = false;  // all hosts have joined, once
  std::string no_place_;   // why there was no placement
  std::map<HostId, Host> hosts_;
  HostId last_host_ = kOwnHost;
  std::map<ChildId, Child> children_;
  ChildId last_child_ = 0;
  std::map<ProcessKeeper::ChildId, ChildId> kept_;
  std::map<int32_t, Place> places_;  // of the ranks, as they were last
  uint64_t epoch_ = 1;               // the latest that a child was started in
  std::vector<std::unique_ptr<HostLink>> lost_links_;
  bool stopping_ = false;
  std::condition_variable changed_;
  std::thread watch_;
  CheckpointServer checkpoint_;
  ProcessKeeper keeper_;  // ends first: its threads call back
};

}  // namespace lorikeet::actors
