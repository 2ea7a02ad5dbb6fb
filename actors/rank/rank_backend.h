// What a rank needs of its kind of device: weights, the way into the group, the model.
#pragma once

#include <cstdint>
#include <functional>
#include <memory>
#include <string>
#include <vector>

#include "actors/rank/rank_memory.h"
#include "actors/wire/control_message.h"
#include "actors/wire/options.h"
#include "actors/wire/wire.h"
#include "comm/collective/rendezvous.h"
#include "kernels/base/error.h"
#include "model/checkpoint/shard_plan.h"
#include "model/forward/rank_model.h"

namespace lorikeet::actors {

// Threads: load and join from the rank's step thread; first load, once; abort from any thread, at any time.
class RankBackend {
 public:
  virtual ~RankBackend() = default;

  // Takes over the weights and the KV cache that a predecessor left, or reads this rank's part of the checkpoint;
  // progress(done, total) counts layers.
  virtual Result<RankLoaded> load(const std::function<void(int, int)>& progress) = 0;

  // Meets the other ranks of an epoch, and makes the model. A later epoch gets the same model, without steps in flight; its
  // KV cache keeps its content, of which num_blocks are used from then on. Throws comm::CollectiveError where the ranks do
  // not meet. Errors: failures that another epoch would not repair.
  virtual Result<std::shared_ptr<model::RankModel>> join(comm::Rendezvous& store, uint64_t epoch,
                                                         int32_t num_blocks) = 0;

  // After a join: updates what load() returned.
  virtual void update(RankLoaded&) const {}

  // [slots] The digests of the adapters that a predecessor left in the slots; empty: none. After load().
  virtual std::vector<std::string> adapters_left() const { return {}; }

  // Ends the collectives of all earlier epochs, those that wait for a peer and those that are begun later.
  virtual void abort(uint64_t before_epoch) = 0;

  // The cut of base and adapters; after load.
  virtual const model::ShardPlan& shard_plan() const = 0;
};

// The prefix of an epoch's keys in the rendezvous store.
inline std::string rendezvous_prefix(uint64_t epoch) {
  return "epoch" + std::to_string(epoch) + "/";
}

// How many ranks of the group are on the host of this one, itself included. All ranks call it, of the same epoch (prefix),
// and count the same: it follows from what they tell each other, and not from what each was told when it was started,
// since ranks move to other hosts one by one. Throws as the store does.
int32_t ranks_on_host(comm::Rendezvous& store, const std::string& prefix, int32_t rank, int32_t ranks,
                      const RankPlace& place);

// The one for options.device; refuses a device that this build does not serve.
Result<std::shared_ptr<RankBackend>> make_rank_backend(const ServerOptions& options, int32_t rank, RankMemory memory,
                                                       const RankPlace& place = {});

// Float32 on the CPU, with Gloo between the ranks.
std::shared_ptr<RankBackend> make_cpu_backend(const ServerOptions& options, int32_t rank, RankMemory memory,
                                              const RankPlace& place = {});

// fp16 or bf16 on a CUDA device, with NCCL between the ranks; in builds that have CUDA.
std::shared_ptr<RankBackend> make_cuda_backend(const ServerOptions& options, int32_t rank, RankMemory memory,
                                               const RankPlace& place = {});

}  // namespace lorikeet::actors
