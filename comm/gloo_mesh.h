// The connections of one rank to all others over Gloo's TCP transport, and the one place that knows when they are lost.
//
// Gloo tells of a broken connection through the buffers that are pending on it, but not through one that is half
// received, nor through buffers that wait for another peer. So a watcher thread waits on a buffer of its own, which all
// peers would have to fill: each does so when it leaves in good order, and a connection that breaks before that is a
// lost peer, whoever is being waited for. A rank that fails or aborts closes its connections, and so ends the waits of
// the others.
#pragma once

#include <chrono>
#include <cstddef>
#include <cstdint>
#include <functional>
#include <memory>
#include <mutex>
#include <optional>
#include <string>
#include <thread>
#include <vector>

#include "comm/collective.h"

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

  // Sends from one memory and receives into another, under way together. The destructor takes both away from Gloo:
  // after it nothing is read or written there. At most one at a time, within run().
  class Exchange {
   public:
    Exchange(GlooMesh& mesh, Memory out, Memory in);
    ~Exchange();
    Exchange(const Exchange&) = delete;
    Exchange& operator=(const Exchange&) = delete;

    void send(int peer, size_t offset, size_t bytes);
    void receive(int peer, size_t offset, size_t bytes);
    void finish();     // waits for all of them
    void interrupt();  // ends finish(); any thread

   private:
    GlooMesh& mesh_;
    const uint64_t slot_;
    const std::unique_ptr<gloo::transport::UnboundBuffer> out_, in_;
    int sends_ = 0, receives_ = 0;
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
  // These three with the mutex held.
  void stop(CollectiveFailure failure, const std::string& reason);
  CollectiveFailure lost_or_late() const;
  void throw_if_failed() const;
  void watch();
  void say_goodbye();
  Milliseconds time_left() const;

  const std::shared_ptr<gloo::rendezvous::Context> context_;
  const Milliseconds timeout_;
  std::vector<int> peers_;

  uint64_t next_slot_;  // of the thread that calls the operations

  std::mutex mutex_;
  Clock::time_point deadline_;  // of the running operation, whose thread alone writes it
  std::optional<CollectiveFailure> failure_;
  std::string reason_;
  bool in_operation_ = false;
  Exchange* exchange_ = nullptr;

  char goodbye_ = 0;  // the memory of watched_
  const std::unique_ptr<gloo::transport::UnboundBuffer> watched_;
  std::thread watcher_;
};

}  // namespace lorikeet::comm
