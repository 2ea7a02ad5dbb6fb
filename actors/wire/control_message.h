// What the supervisor and its children say to each other over the control channel (actors/wire/control_channel.h).
#pragma once

#include <cstdint>
#include <string>

#include "actors/wire/options.h"

namespace lorikeet::actors {

// The first message to a child.
struct ChildStart {
  ServerOptions options;
  std::string secret;     // by which the head knows its ranks
  uint64_t epoch = 1;     // of the group that a rank belongs to; the first one that a head serves
  int32_t rank = -1;      // -1: the head
  int32_t head_port = 0;  // for a rank: where the head listens, on loopback
  int32_t parent_pid = 0;
  template <class Self, class Visitor>
  static void fields(Self& s, Visitor&& visit) {
    visit("options", s.options);
    visit("secret", s.secret);
    visit("epoch", s.epoch);
    visit("rank", s.rank);
    visit("head_port", s.head_port);
    visit("parent_pid", s.parent_pid);
  }
};

enum class ControlKind : uint8_t {
  // supervisor -> child
  stop,       // end in order
  new_epoch,  // to the head: the ranks of `epoch` are being started
  // child -> supervisor
  listening,   // the head: ranks may dial `port`
  progress,    // `text` is for people
  failed,      // the child cannot go on and ends: `text` says why
  ready,       // the head: requests are served; `text` is the client address
  group_lost,  // the head: the group of `epoch` cannot be used any more, since `text`
};
constexpr ControlKind last_enumerator(ControlKind) {
  return ControlKind::group_lost;
}

struct ControlMessage {
  ControlKind kind = ControlKind::progress;
  std::string text;
  uint64_t epoch = 0;
  int32_t port = 0;
  template <class Self, class Visitor>
  static void fields(Self& s, Visitor&& visit) {
    visit("kind", s.kind);
    visit("text", s.text);
    visit("epoch", s.epoch);
    visit("port", s.port);
  }
};

}  // namespace lorikeet::actors
