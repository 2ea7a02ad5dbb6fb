// From logits on the device to a step's outputs, over a vocabulary that is cut over the ranks.
#pragma once

#include <cstdint>
#include <span>
#include <vector>

#include "comm/collective/device_collective.h"
#include "kernels/base/device.h"
#include "kernels/sampling/logprobs_cuda.h"
#include "kernels/sampling/sampling_cuda.h"
#include "model/checkpoint/shard_plan.h"
#include "model/forward/sample_plan.h"

namespace lorikeet::model {

// Where the results of one portion lie in a step's pinned memory.
struct PortionResults {
  kernels::LogitStatistics* statistics;  // [ranks, logprobs]
  kernels::Candidate* best;              // [ranks, logprobs, stride]
  int32_t* counts_at_least;              // [ranks, logprobs]; none unless portion.ranked
  kernels::DeviceTokenCount* counts;     // [counts], on their way to the device
  ConstraintArrays constraints;          // likewise
  uint64_t constraint_bytes;             // of them

  PortionResults(const SamplePortion& portion, int ranks, Carver& carver);
};

// Threads: one at a time, on one stream.
class CudaSampler {
 public:
  // For steps of up to max_rows sequences of up to max_model_len tokens, logits of up to logits_rows tokens at a time.
  static Result<CudaSampler> make(const ShardPlan& plan, int rank, int32_t max_rows, int32_t logits_rows,
                                  int32_t max_model_len);

  const SampleLimits& limits() const { return limits_; }
  const int32_t* drawn() const { return drawn_.as<int32_t>(); }  // [max_rows], of the last step
  int64_t logits_stride() const { return stride_; }              // elements; alike on all ranks
  uint64_t bytes() const { return bytes_; }

  // Queues everything that makes a portion's results of its logits [rows, logits_stride()]. `arrays` are on the device,
  // `resolved` are the ids of the step's tokens. Throws as the collective does.
  void queue(const SamplePortion& portion, const SampleArrays& arrays, float* logits, const int32_t* resolved,
             const PortionResults& results, comm::DeviceCollective* group, const kernels::Stream& stream);

  // Puts a portion's results, which have arrived, into the rows' outputs. `drawn` [rows] is the host's copy.
  void finish(const SamplePortion& portion, const PortionResults& results, const int32_t* drawn,
              std::span<RowOutput> outputs) const;

 private:
  CudaSampler(const ShardPlan& plan, int rank) : plan_(plan), rank_(rank) {}

  void constrain(const SamplePortion& portion, const PortionResults& results, const kernels::LogitsShard& shard,
                 const int32_t* resolved, const kernels::Stream& stream);
  void draw_unfiltered(const SamplePortion& portion, const SampleArrays& arrays, const kernels::LogitsShard& shard,
                       comm::DeviceCollective* group, const kernels::Stream& stream);
  void draw_filtered(const SamplePortion& portion, const SampleArrays& arrays, const kernels::LogitsShard& shard,
                     comm::DeviceCollective* group, const kernels::Stream& stream);

  ShardPlan plan_;
  int rank_;
  SampleLimits limits_;
  int64_t stride_ = 0;
  uint64_t bytes_ = 0;
  kernels::DeviceBuffer drawn_, draw_workspace_, cut_workspace_, statistics_workspace_, counts_, saved_;
  kernels::DeviceBuffer constraints_, saved_of_biases_;
  kernels::DeviceBuffer candidates_;  // [ranks, logits_rows]: the ranks' draws
  kernels::DeviceBuffer gathered_;    // [ranks, kGatheredRows, stride] logits
  kernels::DeviceBuffer statistics_;  // [ranks, logprobs]
  kernels::DeviceBuffer best_;        // [ranks, limits_.best]
  kernels::DeviceBuffer at_least_;    // [ranks, logprobs] counts of tokens
};

}  // namespace lorikeet::model
