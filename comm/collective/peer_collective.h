// The collectives of GPUs of one host that reach each other's memory: small operations through that memory
// (kernels/peer/peer_sum_cuda.h), the rest by NCCL.
#pragma once

#include <memory>

#include "comm/collective/nccl_collective.h"

namespace lorikeet::comm {

struct PeerOptions {
  // Ranks share a device. (Also assumed where the multi-process service is on.)
  bool shares_device = false;
  // false: NCCL alone. Must be the same on all ranks: a rank with true waits for the others, and fails to join without them.
  bool enabled = true;
};

// As make_nccl_collective(), which it calls (without connect_behind where NCCL does everything). If the ranks are processes
// of one user on one host whose devices reach each other, and a trial sum is right on all of them, the operations that
// sum_table.h gives to the peers go through their memory; else NCCL does everything, and the log says why. Ranks with the
// same settings decide alike.
//
// Sums of the peers are formed in the order of the ranks, in float, and rounded once: the same bits on every rank, in
// every run, at every place and size.
//
// wait() notices a peer's death within a fifth of a second, since the peer's line to this process closes.
Result<std::unique_ptr<DeviceCollective>> make_device_collective(Rendezvous& store, const NcclOptions& options,
                                                                 const PeerOptions& peers);

}  // namespace lorikeet::comm
