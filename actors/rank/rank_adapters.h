// The thread that takes adapters in on a rank, beside the one that runs the steps.
//
//             adapter_begin           last chunk                         factors
//   (nothing) -------------> chunks -------------> decoded --(DoRA: norms sent)--> in the slot ---> done is sent
//
// An error at any point is sent as `done`; the head then rolls back with adapter_clear, which also ends a transfer that
// is under way.
#pragma once

#include <condition_variable>
#include <cstdint>
#include <deque>
#include <functional>
#include <map>
#include <memory>
#include <mutex>
#include <optional>
#include <thread>
#include <vector>

#include "actors/wire/envelope.h"
#include "actors/wire/wire.h"
#include "model/adapter/adapter.h"
#include "model/checkpoint/shard_plan.h"
#include "model/forward/rank_model.h"

namespace lorikeet::actors {

// Threads: take from any. Envelopes are handled in the order in which they come.
class RankAdapters {
 public:
  struct Setup {
    int32_t rank = 0;
    uint64_t epoch = 0;
    int32_t num_slots = 8;
  };

  RankAdapters(Setup setup, model::ShardPlan plan, std::shared_ptr<model::RankModel> model,
               std::function<void(Envelope)> to_cache);
  ~RankAdapters();
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
  void handle(Envelope envelope);
  Result<void> begin(uint64_t number, const Envelope& envelope);
  Result<void> chunk(uint64_t number, const Envelope& envelope);
  Result<void> decoded(uint64_t number, Transfer& transfer);
  Result<void> factors(uint64_t number, Envelope envelope);
  Result<void> place(uint64_t number, const AdapterBegin& begin, const model::Adapter& part);
  Result<void> clear(const Envelope& envelope);
  void send(EnvelopeKind kind, uint64_t number, std::vector<uint8_t> bytes);

  const Setup setup_;
  const model::ShardPlan plan_;
  const std::shared_ptr<model::RankModel> model_;
  const std::function<void(Envelope)> to_cache_;
  std::map<uint64_t, Transfer> transfers_;  // by number
  EnvelopeAssembler assembler_;

  std::mutex mutex_;  // guards what follows
  std::condition_variable wake_;
  std::deque<Envelope> inbox_;
  bool stop_ = false;
  std::thread thread_;
};

}  // namespace lorikeet::actors
