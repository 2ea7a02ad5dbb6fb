// The collectives of a tensor-parallel group whose tensors are in device memory: operations are queued on a stream,
// beside the kernels whose results they carry, and may be part of a captured graph.
#pragma once

#include <cstddef>

#include "comm/collective/collective.h"
#include "kernels/base/device.h"
#include "kernels/base/dtype.h"
#include "kernels/layer/rms_norm_cuda.h"
#include "kernels/peer/peer_sum_cuda.h"

namespace lorikeet::comm {

// One rank's end of a communicator. All ranks queue the same operations in the same order with the same sizes.
// Threads: one thread calls the operations and wait(); abort() may come from any thread, at any time.
// Errors: a lost peer shows in wait(), since the operations only queue; any call throws CollectiveError once the
// communicator is dead. It then lets go of the stream by itself, within a second or so: what was queued behind the
// failed operation runs on undefined data, and a graph that holds operations of this communicator must not be launched
// again. Whoever destroys its end, though the group is well, has sent what the others still wait for, where they take it
// within a second; to operations that they begin behind it, it is a lost peer.
class DeviceCollective {
 public:
  virtual ~DeviceCollective() = default;

  virtual int rank() const = 0;
  virtual int size() const = 0;

  // data [count] of F16, BF16 or F32 becomes the sum over ranks, the same bits on every rank.
  virtual void all_reduce(void* data, size_t count, kernels::Dtype dtype, const kernels::Stream& stream) = 0;

  // Whether all_reduce_norm takes so many rows: a question of sizes and of the machine, so alike on all ranks.
  virtual bool takes_norm(int32_t tokens, int32_t width, kernels::Dtype dtype) const = 0;

  // What follows a layer's product in one kernel: args.delta becomes the sum over ranks, which is added to the residual
  // stream, and args.out the norm. The same bits as all_reduce and add_rms_norm_cuda; args.delta is undefined behind it.
  virtual void all_reduce_norm(const kernels::AddRmsNormArgs& args, const kernels::Stream& stream) = 0;

  // send [bytes] of every rank -> receive [size() * bytes], ordered by rank. send may be receive + rank() * bytes.
  virtual void all_gather(const void* send, void* receive, size_t bytes, const kernels::Stream& stream) = 0;

  // What kernels need that exchange words with the other ranks themselves (kernels/peer/peer_row.cuh); null where ranks do
  // not reach each other's memory, alike on all. It lives as long as this, and such kernels are operations of it.
  virtual const kernels::PeerGroup* peers() = 0;

  // data [bytes] of rank `root` -> data of all.
  virtual void broadcast(void* data, size_t bytes, int root, const kernels::Stream& stream) = 0;

  // Waits until the device has passed `event`, recorded behind operations of this communicator. Throws CollectiveError:
  // peer_lost when a peer has died, timeout when the wait lasts longer than the communicator's operation timeout (a
  // peer has stopped), aborted after abort().
  virtual void wait(const kernels::Event& event) = 0;

  // Throws as wait does where the communicator is known to be dead. Does not wait.
  virtual void check() = 0;

  // Ends a running wait() and all later calls with CollectiveError{aborted}, within 100 ms.
  virtual void abort() = 0;
};

// Aborts it. By the thread that operations come from, when its streams are free: then its end has time.
inline void give_up(DeviceCollective& communicator) {
  communicator.abort();
  try {
    communicator.check();
  } catch (const CollectiveError&) {  // what it says from now on
  }
}

}  // namespace lorikeet::comm
