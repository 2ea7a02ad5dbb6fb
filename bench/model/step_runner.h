// A rank's model with random weights, and sequences whose steps run on it: what the figures of decode_step_gpu_bench are
// taken of. Used by one thread, whose device it acts on.
#pragma once

#include <glog/logging.h>

#include <cstdint>
#include <memory>
#include <span>
#include <vector>

#include "bench/model/step_bench_inputs.h"
#include "bench/model/step_bench_options.h"
#include "bench/model/step_floors.h"
#include "comm/collective/peer_collective.h"
#include "kernels/base/error.h"
#include "model/forward/cuda_model.h"

namespace lorikeet::model {

template <class T>
T must(Result<T> result) {
  CHECK(result) << result.error().message;
  return std::move(*result);
}

struct StepSequence {
  std::vector<int32_t> ids, blocks;
  std::vector<TokenCount> counts;
  int32_t computed = 0;
  int32_t pending_row = -1;
};

// How a step's rows are given adapters: of so many in turn, or, mixed, drawn anew at every step. 0: none.
struct StepAdapters {
  int32_t count = 0;
  bool mixed = false;
};

class StepRunner {
 public:
  static constexpr int32_t kAdapters = 64;  // in slots
  static constexpr int32_t kBlockSize = 16;
  static constexpr int kWarmUpSteps = 8;
  static constexpr int32_t kLongestPrompt = 2048;

  // Puts the model on the calling thread's device. `store`: where the ranks meet.
  StepRunner(const bench::StepBenchOptions& options, int rank, const bench::StepFloors& floors,
             comm::Rendezvous& store);

  // Makes the KV cache and sequences behind their prompts: options.rows of them, or, with as_fit, as many as the memory
  // has room for. Keys and values are of prompts that were computed; with as_fit of their beginnings, again and again, since
  // all of them would take minutes at long contexts.
  void start(bool as_fit);
  // Prompts lower the clocks of what follows them for a while, and a device that has waited raises them slowly. As many steps
  // as take two seconds at short contexts, but for no longer than `seconds`: over several ranks that must not come first.
  void warm_up(double seconds);

  CudaModel& model() { return *model_; }
  const ShardPlan& plan() const { return plan_; }
  int32_t rows() const { return static_cast<int32_t>(sequences_.size()); }

  // The first of the sequences, with one token to compute.
  std::span<StepSequence> behind_their_prompts(int32_t count);
  // A sequence of its own, of whose blocks there is one set.
  StepSequence new_prompt(int32_t tokens);

  // A decode step of the sequences; `more`: null, or a row behind theirs. At most two are in flight.
  void begin_step(std::span<StepSequence> sequences, const Draw& draw, StepAdapters adapters,
                  const BatchRow* more = nullptr);
  // The oldest step's tokens; the step behind it takes them from the device.
  void finish_step(std::span<StepSequence> sequences);

  // The least time, in milliseconds. The parts follow each other: products, by bytes or by operations, whichever takes
  // longer, then attention, then adapters.
  double decode_floor_ms(int32_t rows, double context, int32_t adapters) const;
  double prompt_floor_ms(int32_t tokens) const;

 private:
  static ShardPlan plan_of(const bench::StepBenchOptions& options);
  void load();
  std::shared_ptr<comm::DeviceCollective> join();
  std::vector<int32_t> random_ids(int32_t count);
  // The first of the sequences' tokens, so many as those are at least; gives the blocks that hold them.
  int32_t compute_prompts(int64_t most);
  // What the first blocks hold, in all others, too.
  void repeat_keys_and_values(int32_t first, int32_t blocks, const KvMemory& memory);

  const bench::StepBenchOptions options_;
  const int rank_;
  const bench::StepFloors floors_;
  comm::Rendezvous& store_;
  const ShardPlan plan_;
  bool shares_device_ = false;
  CudaModelOptions model_options_;
  std::unique_ptr<CudaModel> model_;
  Numbers numbers_;
  double step_bytes_ = 0, kv_bytes_ = 0, lora_bytes_ = 0, layer_flops_ = 0;  // of weights, a token, an adapter, a token
  int32_t blocks_of_sequence_ = 0;
  std::vector<StepSequence> sequences_;
};

}  // namespace lorikeet::model
