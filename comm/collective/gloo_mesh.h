// The connections of one rank to all others over Gloo's TCP transport, and the one place that knows when they are lost.
//
// Gloo tells of a broken connection through the buffers that are pending on it, but not through one that is half
// received, nor through buffers that wait for another peer. So a thread per peer waits on a buffer that the peer fills
// when it leaves in good order: a connection that breaks before that is a lost peer, whoever is being waited for. A
// rank that fails or aborts closes its connections, and so ends the waits of the others.
//
// Closing a connection discards what the peer has not read yet. So a rank that leaves waits a moment for the others to leave,
// too; by then they have all they need of it.
#pragma once

#include <chrono>
#include <condition_variable>
#include <cstddef>
#include <cstdint>
#include <functional>
#include <memory>
#include <mutex>
#include <optional>
#include <string>
#include <thread>
#include <vector>

#include "comm/collective/collective.h"
#include "comm/collective/gloo_inbox.h"

namespace gloo::transport {
class UnboundBuffer;
}
namespace gloo::rendezvous {
class Context;
}

namespace lorikeet::comm {

class GlooMesh {
 public:
  using Clock = std::chrono::steady_clock;
  using Milliseconds = std::chrono::milliseconds;

  struct Memory {
    void* data;
    size_t bytes;
  };

  // Messages from one memory to the peers and from the peers into another, under way together. The destructor takes
  // both away from Gloo: after it nothing is read or written there. At most one at a time, within run().
  //
  // Use: expect() and send() for every message, then take() each expected one, then finish(). A message has the same
  // size on both sides. Small ones arrive in the inbox, which is faster, and need no memory of the caller's.
  class Exchange {
   public:
    Exchange(GlooMesh& mesh, Memory out, Memory in);
    ~Exchange();
    Exchange(const Exchange&) = delete;
    Exchange& operator=(const Exchange&) = delete;

    void expect(int peer, size_t offset, size_t bytes);  // of `in`
    void send(int peer, size_t offset, size_t bytes);    // of `out`

    // Waits for the peer's message. In `in` where it was expected, or, if it is small, in memory that lasts until the
    // next exchange.
    const char* take(int peer);

    void finish();  // waits for the sends

    // With the mesh's mutex held; any thread.
    void interrupt();
    void interrupt(int peer);

   private:
    GlooMesh& mesh_;
    char* const in_;
    const std::unique_ptr<gloo::transport::UnboundBuffer> out_;
    const uint64_t slot_;                                                 // of the large messages
    std::vector<std::unique_ptr<gloo::transport::UnboundBuffer>> large_;  // by rank; guarded by the mesh's mutex
    int sends_ = 0;
    bool reposted_ = false;
  };

  GlooMesh(std::shared_ptr<gloo::rendezvous::Context> connected, Milliseconds operation_timeout);
  ~GlooMesh();

  int rank() const;
  int size() const;
  const std::vector<int>& peers() const { return peers_; }  // every rank begins with another

  // Runs one operation, a callable that makes exchanges. Whatever goes wrong becomes a CollectiveError, and the mesh is
  // dead from then on.
  void run(const char* name, const std::function<void()>& operation);

  void abort();  // any thread

 private:
  // A peer's last word.
  struct Goodbye {
    char memory = 0;
    std::unique_ptr<gloo::transport::UnboundBuffer> buffer;
    std::thread watcher;
    bool said = false;  // guarded by mutex_
  };

  // These with the mutex held.
  void stop(CollectiveFailure failure, const std::string& reason);
  CollectiveFailure lost_or_late() const;
  void throw_if_failed() const;

  void wait_for(gloo::transport::UnboundBuffer& message);
  void watch(int peer);
  void say_goodbye();
  Milliseconds time_left() const;

  const std::shared_ptr<gloo::rendezvous::Context> context_;
  const Milliseconds timeout_;
  const std::vector<int> peers_;

  // Of the thread that calls the operations.
  GlooInbox inbox_;
  uint64_t next_slot_;

  std::mutex mutex_;
  std::condition_variable changed_;  // a peer has left, or all is lost
  Clock::time_point deadline_;       // of the running operation, whose thread alone writes it
  std::optional<CollectiveFailure> failure_;
  std::string reason_;
  bool in_operation_ = false;
  Exchange* exchange_ = nullptr;

  std::vector<Goodbye> goodbyes_;  // by rank; the own one is empty
};

}  // namespace lorikeet::comm
