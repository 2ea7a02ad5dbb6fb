// The collectives in which the ranks of one tensor-parallel group meet. Tensors cross processes here and nowhere else.
#pragma once

#include <cstddef>
#include <stdexcept>
#include <string>

namespace lorikeet::comm {

enum class CollectiveFailure { peer_lost, aborted, timeout };

// The typed error of a lost peer. After one, the communicator is dead: a new one is made for the next epoch.
class CollectiveError : public std::runtime_error {
 public:
  CollectiveError(CollectiveFailure failure, const std::string& what) : std::runtime_error(what), failure_(failure) {}
  CollectiveFailure failure() const { return failure_; }

 private:
  CollectiveFailure failure_;
};

// One rank's end of a communicator. All ranks call the same operations in the same order with the same sizes.
// Threads: one thread calls the operations; abort() may come from any thread, at any time.
// Errors: operations throw CollectiveError; the contents of the buffers are then undefined.
class Collective {
 public:
  virtual ~Collective() = default;

  virtual int rank() const = 0;
  virtual int size() const = 0;

  // data [count] on every rank becomes the sum over ranks, added in rank order (((r0 + r1) + r2) + ...), so that every
  // rank holds the same bits and the result does not depend on timing.
  virtual void all_reduce(float* data, size_t count) = 0;

  // send [bytes] of every rank -> receive [size() * bytes], ordered by rank. send may be receive + rank() * bytes.
  virtual void all_gather(const void* send, void* receive, size_t bytes) = 0;

  // data [bytes] of rank `root` -> data of all.
  virtual void broadcast(void* data, size_t bytes, int root) = 0;

  virtual void barrier() = 0;

  // Ends a running operation and all later ones with CollectiveError{aborted}, within 100 ms even behind a stopped
  // peer.
  virtual void abort() = 0;
};

}  // namespace lorikeet::comm
