// What the supervisors of a cluster's hosts say to each other: the head's, and those of hosts that lend it devices. A new
// connection begins with a JoinRequest; over a host's link, HostOrder goes one way and HostReport the other.
#pragma once

#include <cstdint>
#include <string>
#include <variant>
#include <vector>

#include "actors/wire/control_message.h"

namespace lorikeet::actors {

// How two devices of a host reach each other: better ones are larger.
enum class DeviceLink : uint8_t { host, pcie, nvlink };  // over the host's memory; peer to peer
constexpr DeviceLink last_enumerator(DeviceLink) {
  return DeviceLink::nvlink;
}

// What a host lends: as many ranks as it has devices here.
struct HostDevices {
  std::string kind;                      // cpu or cuda
  std::string model;                     // such as "NVIDIA H200"; of several models all, with commas; empty for a CPU
  std::vector<int32_t> numbers;          // of the devices; on the CPU they only count
  std::vector<uint64_t> memory_bytes{};  // of each; empty: not known
  std::vector<DeviceLink> links{};       // [device, other device]; empty: not known
  template <class Self, class Visitor>
  static void fields(Self& s, Visitor&& visit) {
    visit("kind", s.kind);
    visit("model", s.model);
    visit("numbers", s.numbers);
    visit("memory_bytes", s.memory_bytes);
    visit("links", s.links);
  }
};

namespace host {

// ---- the first words of a connection

struct Join {  // a host lends its devices
  std::string version;
  std::string name;      // for people
  std::string instance;  // random: recognises a worker's process when it connects again
  HostDevices devices;
  bool spare = false;
  std::string address;  // numeric, of its collectives
  template <class Self, class Visitor>
  static void fields(Self& s, Visitor&& visit) {
    visit("version", s.version);
    visit("name", s.name);
    visit("instance", s.instance);
    visit("devices", s.devices);
    visit("spare", s.spare);
    visit("address", s.address);
  }
};

struct ConnectRank {  // the connection of a rank that the head's supervisor has had started
  std::string link;   // the host's, as Admitted told it
  uint64_t child = 0;
  uint64_t epoch = 0;
  int32_t rank = 0;
  template <class Self, class Visitor>
  static void fields(Self& s, Visitor&& visit) {
    visit("link", s.link);
    visit("child", s.child);
    visit("epoch", s.epoch);
    visit("rank", s.rank);
  }
};

struct ReadCheckpoint {  // a connection over which a host gets its ranks' part of it (actors/wire/checkpoint_message.h)
  std::string link;      // the host's, as Admitted told it
  template <class Self, class Visitor>
  static void fields(Self& s, Visitor&& visit) {
    visit("link", s.link);
  }
};

// ---- head -> host

struct Admitted {
  std::string refused;  // not empty: why the host is not wanted; the link ends
  std::string link;     // secret, new for each link
  uint64_t epoch = 0;   // of the group, as it is now
  int32_t heartbeat_ms = 500;
  template <class Self, class Visitor>
  static void fields(Self& s, Visitor&& visit) {
    visit("refused", s.refused);
    visit("link", s.link);
    visit("epoch", s.epoch);
    visit("heartbeat_ms", s.heartbeat_ms);
  }
};

struct StartRank {
  uint64_t child = 0;
  ChildStart start;
  template <class Self, class Visitor>
  static void fields(Self& s, Visitor&& visit) {
    visit("child", s.child);
    visit("start", s.start);
  }
};

struct TellRank {
  uint64_t child = 0;
  ChildOrder order;
  template <class Self, class Visitor>
  static void fields(Self& s, Visitor&& visit) {
    visit("child", s.child);
    visit("order", s.order);
  }
};

struct KillRank {
  uint64_t child = 0;
  template <class Self, class Visitor>
  static void fields(Self& s, Visitor&& visit) {
    visit("child", s.child);
  }
};

struct DropRegions {  // lets go of the memory that is held for a rank
  int32_t rank = 0;
  template <class Self, class Visitor>
  static void fields(Self& s, Visitor&& visit) {
    visit("rank", s.rank);
  }
};

struct Beat {  // both ways: an end that is silent for too long is lost
  template <class Self, class Visitor>
  static void fields(Self&, Visitor&&) {}
};

// ---- host -> head

struct RankSaid {
  uint64_t child = 0;
  ChildReport report;
  template <class Self, class Visitor>
  static void fields(Self& s, Visitor&& visit) {
    visit("child", s.child);
    visit("report", s.report);
  }
};

struct RankExited {
  uint64_t child = 0;
  std::string how;
  bool on_purpose = false;
  int32_t signal = 0;
  template <class Self, class Visitor>
  static void fields(Self& s, Visitor&& visit) {
    visit("child", s.child);
    visit("how", s.how);
    visit("on_purpose", s.on_purpose);
    visit("signal", s.signal);
  }
};

struct RankState {  // with every beat, as Processes has them
  uint64_t child = 0;
  bool is_stopped = false;
  std::string description;
  bool fetches = false;  // not started yet: the host is still getting its part of the checkpoint
  template <class Self, class Visitor>
  static void fields(Self& s, Visitor&& visit) {
    visit("child", s.child);
    visit("is_stopped", s.is_stopped);
    visit("description", s.description);
    visit("fetches", s.fetches);
  }
};

}  // namespace host

using JoinRequest = std::variant<host::Join, host::ConnectRank, host::ReadCheckpoint>;
using HostOrder =
    std::variant<host::Admitted, host::StartRank, host::TellRank, host::KillRank, host::Beat, host::DropRegions>;
using HostReport = std::variant<host::RankSaid, host::RankExited, host::RankState, host::Beat>;

}  // namespace lorikeet::actors
