// The NCCL implementation of comm/collective/device_collective.h.
#pragma once

#include <chrono>
#include <memory>
#include <mutex>
#include <string>
#include <vector>

#include "comm/collective/device_collective.h"
#include "comm/collective/rendezvous.h"
#include "kernels/base/error.h"

struct ncclComm;  // NCCL's communicator

namespace lorikeet::comm {

// Communicators of groups that are over and whose streams are free. Ending one takes half a second and holds the driver's
// locks, which a rank that comes back needs itself. So they are kept here and ended just before the next communicator
// connects; a rank never has more than one here.
// Threads: any.
class RetiredCommunicators {
 public:
  RetiredCommunicators() = default;
  ~RetiredCommunicators() { end(); }
  RetiredCommunicators(const RetiredCommunicators&) = delete;
  RetiredCommunicators& operator=(const RetiredCommunicators&) = delete;

  void add(ncclComm* communicator);
  void end();  // returns when all have ended
  size_t size() const;

 private:
  mutable std::mutex mutex_;
  std::vector<ncclComm*> communicators_;
};

struct NcclOptions {
  int rank = 0;
  int size = 1;
  std::string prefix;  // of the keys in the store: one per epoch
  std::chrono::milliseconds connect_timeout{60'000};
  std::chrono::milliseconds operation_timeout{30'000};  // a peer that is silent for so long is lost
  // Return as soon as the ranks have agreed on an id, and connect some seconds later, or when the first operation needs it
  // (connecting_collective.h). Each rank may choose for itself.
  bool connect_behind = false;
  // Where this communicator goes when it is given up, and whose communicators are ended before it connects; may be null.
  std::shared_ptr<RetiredCommunicators> retired;
};

// Meets the other ranks through `store` (rank 0 sets NCCL's unique id, the others get it) and connects on the calling
// thread's device (kernels::use_device). The store is used during the call only. After a failure, a new communicator is
// made under another prefix by the surviving and the new ranks.
//
// Order of the sums: NCCL adds along rings or trees that it lays once, at this call, and chooses among them by the size
// of the message. So the same sizes on the same communicator give the same bits in every run, and all ranks receive the
// bits that one of them computed; but the order is not that of the ranks, and it may differ between machines. With two
// ranks there is one order only. 16-bit sums are rounded at every addition.
Result<std::unique_ptr<DeviceCollective>> make_nccl_collective(Rendezvous& store, const NcclOptions& options);

}  // namespace lorikeet::comm
