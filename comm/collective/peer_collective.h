// The collectives of GPUs of one host that reach each other's memory: small operations through that memory
// (kernels/peer/peer_sum_cuda.h), the rest by NCCL.
#pragma once

#include <memory>

#include "comm/collective/nccl_collective.h"

namespace lorikeet::comm {

struct PeerOptions {
  // Ranks share a device (they are known to, too, where the multi-process service is on).
  bool shares_device = false;
  // Off: NCCL alone. The same on all ranks: one that is on waits for the others, and fails to join without them.
  bool enabled = true;
};

// As make_nccl_collective, which it calls, without connect_behind where there is nothing but NCCL. Where the ranks are processes of one user on one host whose devices reach
// each other, and a trial sum has come out right on all of them, operations that sum_table.h gives to the peers take
// their memory; else NCCL does everything, and the log says why. Ranks that were told the same decide alike.
//
// Sums of the peers are formed in the order of the ranks, in float, and rounded once: the same bits on every rank, in
// every run, at every place and size.
//
// A peer's death shows in wait() within a fifth of a second, as its line to this process closes.
Result<std::unique_ptr<DeviceCollective>> make_device_collective(Rendezvous& store, const NcclOptions& options,
                                                                 const PeerOptions& peers);

}  // namespace lorikeet::comm
