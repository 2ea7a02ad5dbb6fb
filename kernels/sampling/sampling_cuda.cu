#include "kernels/base/cuda_check.h"
#include "kernels/sampling/candidate.cuh"
#include "kernels/sampling/sampling_cuda.h"

namespace lorikeet::kernels {
namespace {

constexpr int kThreads = 256;
constexpr int kWarps = kThreads / device::kWarpSize;
constexpr int kBatch = 4;                       // tokens that a thread has in hand at a time in the unfiltered draw
constexpr int kLeastChunk = kThreads * kBatch;  // tokens of a CTA whose threads have one batch
constexpr int kSeedBatches = 4;                 // of which a thread makes the best logit's noise first, at most
constexpr int kDrawBlocks = 1024;               // that run at once: eight on each of an H200's 132 multiprocessors

__device__ __forceinline__ float penalise(const DrawRow& row, float logit, int in_output, bool in_prompt) {
  if (in_output > 0 || in_prompt) {
    logit = logit > 0 ? logit / row.repetition_penalty : logit * row.repetition_penalty;
  }
  logit -= row.frequency_penalty * static_cast<float>(in_output);
  if (in_output > 0) logit -= row.presence_penalty;
  return logit;
}

// One CTA per row: rows, 256 threads, 32 registers, 1 B of shared memory; launched in the ordinary way.
__global__ void __launch_bounds__(kThreads) apply_penalties(PenaltyArgs args) {
  const DrawRow row = args.rows[blockIdx.x];
  if (row.draw_row < 0 || !row.penalised()) return;
  float* logits = args.shard.logits + row.logits_row * args.shard.stride;
  const int pending = row.pending < 0 ? -1 : args.resolved[row.pending];
  __shared__ bool pending_counted;
  if (threadIdx.x == 0) pending_counted = false;
  __syncthreads();
  for (int i = row.counts_begin + threadIdx.x; i < row.counts_end; i += kThreads) {
    const DeviceTokenCount count = args.counts[i];
    const bool is_pending = count.token_id == pending;
    if (is_pending) pending_counted = true;
    const int column = count.token_id - args.shard.vocab_begin;
    if (column < 0 || column >= args.shard.vocab_size) continue;
    const float logit = logits[column];
    args.saved[i] = logit;
    logits[column] = penalise(row, logit, count.in_output + (is_pending ? 1 : 0), count.in_prompt != 0);
  }
  __syncthreads();
  const int column = pending - args.shard.vocab_begin;
  if (threadIdx.x != 0 || pending < 0 || pending_counted || column < 0 || column >= args.shard.vocab_size) return;
  args.saved[args.num_counts + blockIdx.x] = logits[column];
  logits[column] = penalise(row, logits[column], 1, false);
}

struct DrawWorkspace {
  int32_t* arrivals;    // [rows]: blocks that are done; 0 between launches
  Candidate* of_chunk;  // [rows, chunks]
};

__device__ DrawWorkspace workspace_of(const UnfilteredDrawArgs& args) {
  auto* arrivals = static_cast<int32_t*>(args.workspace);
  return {arrivals, reinterpret_cast<Candidate*>(arrivals + (args.workspace_rows + 63) / 64 * 64)};
}

// The best of a CTA's tokens, by logit or with noise. Each thread makes the noise of its best logit of the first kSeeds
// batches first, so that a bound tells of nearly all others that they do not win.
template <int kSeeds>
__device__ __forceinline__ Candidate best_of_chunk(const LogitsShard& shard, const DrawRow& row, int batches,
                                                   Candidate (&of_warp)[kWarps]) {
  const float* logits = shard.logits + row.logits_row * shard.stride;
  const int first = static_cast<int>(blockIdx.x) * batches * kLeastChunk + static_cast<int>(threadIdx.x);
  const auto logit_at = [&](int column) { return column < shard.vocab_size ? logits[column] : NAN; };
  const auto load = [&](int begin, float(&loaded)[kSeeds * kBatch]) {
#pragma unroll
    for (int i = 0; i < kSeeds * kBatch; i++) {
      loaded[i] = begin + i / kBatch < batches ? logit_at(first + begin * kLeastChunk + i * kThreads) : NAN;
    }
  };
  float loaded[kSeeds * kBatch];
  load(0, loaded);
  Candidate best = device::no_candidate();
  if (row.greedy()) {
#pragma unroll 1
    for (int begin = 0; begin < batches; begin += kSeeds) {
      if (begin > 0) load(begin, loaded);
#pragma unroll
      for (int i = 0; i < kSeeds * kBatch; i++) {
        const Candidate c = {loaded[i], shard.vocab_begin + first + begin * kLeastChunk + i * kThreads};
        if (device::better(c, best)) best = c;
      }
    }
    return device::block_best(best, of_warp);
  }
#pragma unroll
  for (int i = 0; i < kSeeds * kBatch; i++) {
    if (loaded[i] > best.value) best = {loaded[i], shard.vocab_begin + first + i * kThreads};
  }
  device::NoisySearch search(row);
  if (best.token_id != device::kNoToken) search.offer_value(best.value / row.temperature, best.token_id);
  search.take(device::block_best(search.best, of_warp));
#pragma unroll 1
  for (int batch = 0; batch < batches; batch++) {
    const int column = first + batch * kLeastChunk;
    float x[kBatch];
#pragma unroll
    for (int i = 0; i < kBatch; i++) x[i] = logit_at(column + i * kThreads);  // the first of them from the L1
    search.offer(x, shard.vocab_begin + column, kThreads, (1U << kBatch) - 1);
  }
  return device::block_best(search.best, of_warp);
}

// CTA (chunk, row); the last CTA of a row to arrive picks the best of the chunks.
//   grid     (vocabulary / (1,024 batches), rows), 256 threads, 32 registers, 68 B of shared memory; launched in the ordinary way
template <int kSeeds>
__global__ void __launch_bounds__(kThreads, 8) draw_unfiltered(UnfilteredDrawArgs args, int batches) {
  const DrawRow row = args.rows[blockIdx.y];
  if (row.draw_row < 0) return;
  __shared__ Candidate of_warp[kWarps];
  Candidate best = best_of_chunk<kSeeds>(args.shard, row, batches, of_warp);
  const DrawWorkspace workspace = workspace_of(args);
  if (threadIdx.x == 0) workspace.of_chunk[static_cast<size_t>(blockIdx.y) * gridDim.x + blockIdx.x] = best;
  if (!device::last_of_row(&workspace.arrivals[blockIdx.y]) || threadIdx.x >= device::kWarpSize) return;
  best = device::no_candidate();
  for (unsigned chunk = threadIdx.x; chunk < gridDim.x; chunk += device::kWarpSize) {
    const float2 raw = __ldcg(reinterpret_cast<const float2*>(workspace.of_chunk) +
                              static_cast<size_t>(blockIdx.y) * gridDim.x + chunk);
    const Candidate c = {raw.x, __float_as_int(raw.y)};
    if (device::better(c, best)) best = c;
  }
  best = device::warp_best(best);
  if (threadIdx.x != 0) return;
  args.best[blockIdx.y] = best;
  if (args.drawn != nullptr) args.drawn[row.draw_row] = device::drawn_token(best);
}

// One thread per row: 256 threads, 32 registers. Under tensor parallelism, when every rank has the candidates of all.
__global__ void compare_draws(CompareDrawsArgs args) {
  const int i = blockIdx.x * blockDim.x + threadIdx.x;
  if (i >= args.num_rows || args.rows[i].draw_row < 0) return;
  Candidate best = args.best[i];
  for (int rank = 1; rank < args.ranks; rank++) {
    const Candidate c = args.best[rank * args.num_rows + i];
    if (device::better(c, best)) best = c;
  }
  args.drawn[args.rows[i].draw_row] = device::drawn_token(best);
}

unsigned chunks_of(int32_t vocab_size, int32_t chunk) {
  return static_cast<unsigned>((vocab_size + chunk - 1) / chunk);
}

}  // namespace

void apply_penalties_cuda(const PenaltyArgs& args, const Stream& stream) {
  if (args.num_rows == 0) return;
  apply_penalties<<<args.num_rows, kThreads, 0, stream.handle()>>>(args);
  LORIKEET_CHECK_CUDA(cudaGetLastError());
}

uint64_t unfiltered_draw_workspace(int32_t workspace_rows, int32_t vocab_size) {
  return static_cast<uint64_t>(workspace_rows + 63) / 64 * 64 * sizeof(int) +
         static_cast<uint64_t>(workspace_rows) * chunks_of(vocab_size, kLeastChunk) * sizeof(Candidate);
}

void draw_unfiltered_cuda(const UnfilteredDrawArgs& args, const Stream& stream) {
  CHECK_GT(args.shard.vocab_size, 0);
  CHECK_LE(args.num_rows, args.workspace_rows);
  if (args.num_rows == 0) return;
  const auto rows = static_cast<unsigned>(args.num_rows);
  const auto batches =
      static_cast<int32_t>((chunks_of(args.shard.vocab_size, kLeastChunk) * rows + kDrawBlocks - 1) / kDrawBlocks);
  const dim3 grid(chunks_of(args.shard.vocab_size, batches * kLeastChunk), rows);
  const auto kernel = batches == 1 ? draw_unfiltered<1> : draw_unfiltered<kSeedBatches>;
  kernel<<<grid, kThreads, 0, stream.handle()>>>(args, batches);
  LORIKEET_CHECK_CUDA(cudaGetLastError());
}

void compare_draws_cuda(const CompareDrawsArgs& args, const Stream& stream) {
  if (args.num_rows == 0) return;
  compare_draws<<<(args.num_rows + kThreads - 1) / kThreads, kThreads, 0, stream.handle()>>>(args);
  LORIKEET_CHECK_CUDA(cudaGetLastError());
}

}  // namespace lorikeet::kernels
