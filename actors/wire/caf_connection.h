// Connections between the actor systems of our processes.
//
// CAF listens nowhere and dials nobody: whoever reached a port of CAF's could send any message to any actor, since its
// protocol knows no passwords. Instead, the supervisor makes a socket pair per rank and gives one end to the rank and
// the other to the head; both hand theirs to CAF here as a connection that is already there. So a connection says who
// is at its other end, nobody else can have one, and it ends with either process. Heartbeats, monitors and lost links
// are CAF's as ever.
//
// What comes in passes the FrameGuard. What goes out to a peer that does not read is bounded: past kMaxPeerBytes the
// connection is cut, and the peer counts as lost.
#pragma once

#include <caf/all.hpp>
#include <caf/io/all.hpp>
#include <cstddef>
#include <cstdint>
#include <memory>
#include <mutex>
#include <optional>
#include <unordered_map>

#include "actors/wire/limits.h"
#include "actors/wire/messages.h"
#include "kernels/base/descriptor.h"

namespace lorikeet::actors {

// Which rank's connection a node is at the other end of. Written by CAF's I/O thread, read by actors.
class PeerRanks {
 public:
  void add(const caf::node_id& node, int32_t rank);
  void remove(const caf::node_id& node);
  std::optional<int32_t> rank_of(const caf::node_id& node) const;  // nullopt: it has no connection

 private:
  mutable std::mutex mutex_;
  std::unordered_map<caf::node_id, int32_t> ranks_;
};

// The head's end of the connection to a rank, which is offered `published` over it.
// The system has loaded the middleman (Networking::connected).
void offer_to_rank(caf::actor_system& system, Descriptor connection, int32_t rank, std::shared_ptr<PeerRanks> peers,
                   const SchedulerForRanks& published);

// The rank's end. To be sent with `request(basp_broker(system), timeout, caf::connect_atom_v, scribe, uint16_t{1})`,
// whose answer is (caf::node_id, caf::strong_actor_ptr, std::set<std::string>): what the head has published.
caf::io::scribe_ptr make_scribe(caf::actor_system& system, Descriptor connection);
caf::actor basp_broker(caf::actor_system& system);

}  // namespace lorikeet::actors
