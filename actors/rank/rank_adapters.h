// The thread that takes adapters in on a rank, beside the one that runs the steps.
//
//             AdapterBegin           last chunk                      factors
//   (nothing) ------------> chunks -------------> whole --(DoRA: norms sent)--> in the slot ---> AdapterDone is sent
//       |                                           ^
//       `------------- AdapterRegion ---------------'    mapped, where its descriptor has come; else ChunksWanted is sent
//
// An error at any point is sent as AdapterDone; the head then rolls back with AdapterClear, which also ends a transfer
// that is under way.
//
// A rank that survives its group keeps its model, and the slots with it. What they hold is known by digest (SlotDigests),
// so that AdapterConfirm can be answered in a later group; the head empties those that it has given up.
#pragma once

#include <cstdint>
#include <functional>
#include <map>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <thread>
#include <vector>

#include "actors/wire/descriptor_channel.h"
#include "actors/wire/envelope.h"
#include "actors/wire/wire.h"
#include "actors/wire/work_queue.h"
#include "kernels/base/resident_memory.h"
#include "model/adapter/adapter.h"
#include "model/checkpoint/shard_plan.h"
#include "model/forward/rank_model.h"

namespace lorikeet::actors {

// [slots] of a rank's model: the digests of what they hold; empty: nothing, or what nobody is sure of. As long as the
// model, by one RankAdapters after the other.
using SlotDigests = std::vector<std::string>;

// Threads: take from any. Envelopes are handled in the order in which they come.
class RankAdapters {
 public:
  struct Setup {
    int32_t rank = 0;
    uint64_t epoch = 0;
    int32_t num_slots = 8;
    std::shared_ptr<DescriptorReceiver> descriptors = nullptr;  // null: there is none, or nobody at its other end
    std::shared_ptr<SlotDigests> held = nullptr;                // of the model; null: its slots are empty
  };

  // Called on the adapters' thread; fatal also on the one that takes.
  struct Callbacks {
    std::function<void(Envelope)> to_cache;
    std::function<void(const std::string&)> fatal;  // what the head sends cannot be read, or comes faster than agreed
  };

  RankAdapters(Setup setup, model::ShardPlan plan, std::shared_ptr<model::RankModel> model, Callbacks callbacks);
  ~RankAdapters();  // finishes the order that is being handled; the others are dropped
  RankAdapters(const RankAdapters&) = delete;
  RankAdapters& operator=(const RankAdapters&) = delete;

  void take(Envelope envelope);

 private:
  struct Transfer {
    AdapterBegin begin;
    std::vector<uint8_t> bytes;
    std::optional<model::Adapter> part;  // DoRA: waits for its factors
  };

  void run();
  Result<std::optional<AdapterOrder>> assemble(Envelope envelope);
  void handle(AdapterOrder order);
  Result<void> perform(uint64_t number, AdapterBegin& begin);
  Result<void> perform(uint64_t number, const AdapterRegion& region);
  Result<void> perform(uint64_t number, const AdapterConfirm& confirm);
  Result<void> perform(uint64_t number, const AdapterChunk& chunk);
  Result<void> perform(uint64_t number, DoraValues& factors);
  Result<void> perform(uint64_t number, const AdapterClear& clear);
  Result<void> check(int32_t slot) const;
  Result<void> check(int32_t slot, uint64_t bytes) const;
  Result<void> whole(uint64_t number, Transfer& transfer, std::span<const uint8_t> slice,
                     std::shared_ptr<const void> owner, const kernels::ResidentMemory* memory);
  Result<void> fill(const AdapterBegin& begin, const std::function<Result<void>()>& put);
  Result<void> done(uint64_t number, const AdapterBegin& begin);
  Result<void> place(uint64_t number, const AdapterBegin& begin, const model::Adapter& part);
  void send(uint64_t number, AdapterReport::What what);

  const Setup setup_;
  const model::ShardPlan plan_;
  const std::shared_ptr<model::RankModel> model_;
  const Callbacks callbacks_;
  const std::shared_ptr<SlotDigests> held_;
  std::map<uint64_t, Transfer> transfers_;  // by number
  EnvelopeAssembler assembler_;
  WorkQueue<Envelope> queue_;
  std::thread thread_;
};

}  // namespace lorikeet::actors
