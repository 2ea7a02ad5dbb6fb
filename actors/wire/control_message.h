// What the supervisor and its children say to each other over the control channel (actors/wire/control_channel.h).
#pragma once

#include <cstdint>
#include <string>
#include <variant>
#include <vector>

#include "actors/wire/options.h"

namespace lorikeet::actors {

// Where a rank is in a cluster of hosts. On one host nothing need be set: the rank's number decides.
struct RankPlace {
  int32_t device = -1;         // of its host; -1: its number modulo the devices
  int64_t host = -1;           // number of its host in the cluster; -1: there is one host only
  int32_t ranks_on_host = 0;   // of its group, when it was started (others may have moved since); 0: all
  std::string address;         // numeric, on which its collectives listen; empty: the loopback's
  std::string interface_name;  // with that address; empty: not known
  template <class Self, class Visitor>
  static void fields(Self& s, Visitor&& visit) {
    visit("device", s.device);
    visit("host", s.host);
    visit("ranks_on_host", s.ranks_on_host);
    visit("address", s.address);
    visit("interface_name", s.interface_name);
  }
};

enum class RegionKind : uint8_t {
  sealed,  // of the host, written once: kernels::ResidentMemory
  shared,  // of the host, written by whoever maps it, of a fixed size: kernels::SharedMemory
  device,  // of a device: kernels::PeerMemory
};
constexpr RegionKind last_enumerator(RegionKind) {
  return RegionKind::device;
}

// Memory of a rank that outlives its process, as long as the supervisor holds its descriptor. A description of its content
// lies in the memory itself, for whoever maps it.
struct RegionDescription {
  std::string name;  // a rank has one of each
  RegionKind kind = RegionKind::sealed;
  uint64_t bytes = 0;
  template <class Self, class Visitor>
  static void fields(Self& s, Visitor&& visit) {
    visit("name", s.name);
    visit("kind", s.kind);
    visit("bytes", s.bytes);
  }
};

// The first message to a child.
struct ChildStart {
  ServerOptions options;
  uint64_t epoch = 1;  // of the group that a rank belongs to; the first one that a head serves
  int32_t rank = -1;   // -1: the head
  int32_t parent_pid = 0;
  uint32_t regions = 0;  // that its predecessor left: a TakeRegion follows for each
  RankPlace place{};
  bool descriptors = false;  // its channel for descriptors is there (ControlChannel::kDescriptorsDescriptor)
  template <class Self, class Visitor>
  static void fields(Self& s, Visitor&& visit) {
    visit("options", s.options);
    visit("epoch", s.epoch);
    visit("rank", s.rank);
    visit("parent_pid", s.parent_pid);
    visit("regions", s.regions);
    visit("place", s.place);
    visit("descriptors", s.descriptors);
  }
};

namespace control {

// ---- supervisor -> child

struct Stop {  // end in order
  template <class Self, class Visitor>
  static void fields(Self&, Visitor&&) {}
};

struct Ping {  // answered with Alive
  template <class Self, class Visitor>
  static void fields(Self&, Visitor&&) {}
};

struct LeaveGroup {  // to a rank: its group is lost; it leaves the collectives, says HasLeft, and joins that of `epoch`
  uint64_t epoch = 0;
  template <class Self, class Visitor>
  static void fields(Self& s, Visitor&& visit) {
    visit("epoch", s.epoch);
  }
};

struct NewEpoch {  // to the head: the ranks of `epoch` are being started
  uint64_t epoch = 0;
  std::string why;       // the epoch before has ended
  bool by_rank = false;  // a rank failed by itself: nobody killed it, stopped it or cut it off
  // A rank failed by itself, whatever was done to others: the KV caches are not trusted.
  bool doubts_kv = false;
  template <class Self, class Visitor>
  static void fields(Self& s, Visitor&& visit) {
    visit("epoch", s.epoch);
    visit("why", s.why);
    visit("by_rank", s.by_rank);
    visit("doubts_kv", s.doubts_kv);
  }
};

struct RankConnection {  // to the head: with it comes a descriptor, its end of the connection to a rank
  uint64_t epoch = 0;
  int32_t rank = 0;
  template <class Self, class Visitor>
  static void fields(Self& s, Visitor&& visit) {
    visit("epoch", s.epoch);
    visit("rank", s.rank);
  }
};

struct RankDescriptors {  // to the head: with it comes its end of the channel for descriptors to a rank of its host
  int32_t rank = 0;
  template <class Self, class Visitor>
  static void fields(Self& s, Visitor&& visit) {
    visit("rank", s.rank);
  }
};

struct TakeRegion {  // to a rank, right after its start: with it comes the descriptor of what its predecessor left
  RegionDescription region;
  template <class Self, class Visitor>
  static void fields(Self& s, Visitor&& visit) {
    visit("region", s.region);
  }
};

// ---- child -> supervisor

struct AwaitsRanks {  // the head: they may be started
  template <class Self, class Visitor>
  static void fields(Self&, Visitor&&) {}
};

struct Progress {
  std::string line;  // for people
  template <class Self, class Visitor>
  static void fields(Self& s, Visitor&& visit) {
    visit("line", s.line);
  }
};

struct Loading {  // a rank: so many layers of its weights are there
  int32_t done = 0, total = 0;
  template <class Self, class Visitor>
  static void fields(Self& s, Visitor&& visit) {
    visit("done", s.done);
    visit("total", s.total);
  }
};

struct Alive {  // after a Ping; the head's has gone through all its actors
  template <class Self, class Visitor>
  static void fields(Self&, Visitor&&) {}
};

struct HasLeft {  // a rank: it does nothing any more for epochs before this one
  uint64_t epoch = 0;
  template <class Self, class Visitor>
  static void fields(Self& s, Visitor&& visit) {
    visit("epoch", s.epoch);
  }
};

struct Failed {  // the child cannot go on and ends
  std::string why;
  bool by_itself = false;  // the cause is not that another process is gone
  template <class Self, class Visitor>
  static void fields(Self& s, Visitor&& visit) {
    visit("why", s.why);
    visit("by_itself", s.by_itself);
  }
};

struct Ready {  // the head: requests are served by the group of `epoch`
  uint64_t epoch = 0;
  std::string address;    // of the clients' socket
  int32_t http_port = 0;  // of the HTTP door; 0: there is none
  int64_t kv_cache_tokens = 0;
  template <class Self, class Visitor>
  static void fields(Self& s, Visitor&& visit) {
    visit("epoch", s.epoch);
    visit("address", s.address);
    visit("http_port", s.http_port);
    visit("kv_cache_tokens", s.kv_cache_tokens);
  }
};

struct GroupLost {  // the head: the group of `epoch` cannot be used any more
  uint64_t epoch = 0;
  std::string why;
  bool by_rank = false;        // as far as the head knows
  std::vector<int32_t> ranks;  // that cannot go on; empty: it is not known which, or none
  template <class Self, class Visitor>
  static void fields(Self& s, Visitor&& visit) {
    visit("epoch", s.epoch);
    visit("why", s.why);
    visit("by_rank", s.by_rank);
    visit("ranks", s.ranks);
  }
};

struct HoldRegion {  // a rank: with it comes a descriptor to be held, in place of an older one of that name
  RegionDescription region;
  template <class Self, class Visitor>
  static void fields(Self& s, Visitor&& visit) {
    visit("region", s.region);
  }
};

struct DropRegions {  // a rank: it cannot use what is held for it
  std::string name;   // the region; empty: all
  template <class Self, class Visitor>
  static void fields(Self& s, Visitor&& visit) {
    visit("name", s.name);
  }
};

}  // namespace control

// What a child is told, and what it reports: one type for each direction, so that neither side ever takes a message that
// only it may send.
using ChildOrder = std::variant<control::Stop, control::NewEpoch, control::RankConnection, control::Ping,
                                control::LeaveGroup, control::TakeRegion, control::RankDescriptors>;
using ChildReport =
    std::variant<control::AwaitsRanks, control::Progress, control::Failed, control::Ready, control::GroupLost,
                 control::Loading, control::Alive, control::HasLeft, control::HoldRegion, control::DropRegions>;

}  // namespace lorikeet::actors
