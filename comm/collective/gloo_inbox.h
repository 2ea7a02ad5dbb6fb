// Where small messages arrive. Gloo sends no data before the receiver has asked for it, which costs a turn of the
// network and two threads' wake-ups in each operation; so the receives of the next two small messages of every peer are
// always posted ahead, into buffers of our own.
#pragma once

#include <cstddef>
#include <cstdint>
#include <memory>
#include <vector>

namespace gloo::transport {
class UnboundBuffer;
}
namespace gloo::rendezvous {
class Context;
}

namespace lorikeet::comm {

// Threads: that of the operations; interrupt() from any. Functions throw what Gloo throws.
class GlooInbox {
 public:
  static constexpr size_t kMessageBytes = 1 << 20;

  GlooInbox(gloo::rendezvous::Context& context, std::vector<int> peers);
  ~GlooInbox();

  // The slot of the next small message to a peer: both sides count them.
  uint64_t next_slot_to(int peer);

  // Where the next small message of a peer arrives, or has arrived. Once taken, it is the caller's until repost().
  gloo::transport::UnboundBuffer& next_from(int peer);
  void taken_from(int peer);

  // Posts receives for the messages after those that have been received. Called after the sends of an operation, where it
  // costs no time.
  void repost();

  void interrupt(int peer);  // a wait for its next message, now or later

 private:
  static constexpr size_t kAhead = 2;

  struct Buffer {
    std::unique_ptr<char[]> memory;  // [kMessageBytes], touched as far as messages are long
    std::unique_ptr<gloo::transport::UnboundBuffer> handle;
  };
  // A buffer for each message: of two messages in one buffer Gloo would tell only the last one's rank.
  struct Peer {
    uint64_t sent = 0, received = 0, posted = 0;  // messages
    Buffer buffers[kAhead];                       // by message number % kAhead
  };

  const std::vector<int> peers_;
  std::vector<Peer> state_;  // by rank; the own one is empty
};

}  // namespace lorikeet::comm
