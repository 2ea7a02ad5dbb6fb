#include "kernels/base/cuda_check.h"
#include "kernels/sampling/candidate.cuh"
#include "kernels/sampling/sampling_cuda.h"

namespace lorikeet::kernels {
namespace {

constexpr int kThreads = 256;
constexpr int kWarps = kThreads / device::kWarpSize;
constexpr int kChunk = 4096;  // tokens of one block of the unfiltered draw

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
  int* arrivals;        // [rows]: blocks that are done; 0 between launches
  Candidate* of_chunk;  // [rows, chunks]
};

__device__ DrawWorkspace workspace_of(const UnfilteredDrawArgs& args) {
  int* arrivals = static_cast<int*>(args.workspace);
  return {arrivals, reinterpret_cast<Candidate*>(arrivals + (args.workspace_rows + 63) / 64 * 64)};
}

// CTA (chunk, row); the last CTA of a row to arrive picks the best of the chunks.
//   grid     (vocabulary / 4,096, rows), 256 threads, 29 registers, 65 B of shared memory; launched in the ordinary way
__global__ void __launch_bounds__(kThreads) draw_unfiltered(UnfilteredDrawArgs args) {
  const DrawRow row = args.rows[blockIdx.y];
  if (row.draw_row < 0) return;
  const float* logits = args.shard.logits + row.logits_row * args.shard.stride;
  const bool greedy = row.greedy();
  Candidate best = device::no_candidate();
#pragma unroll 4
  for (int i = 0; i < kChunk / kThreads; i++) {
    const int column = blockIdx.x * kChunk + i * kThreads + threadIdx.x;
    if (column >= args.shard.vocab_size) break;
    const int token = args.shard.vocab_begin + column;
    const float x = logits[column];
    if (x != x) continue;
    if (!greedy) {
      device::offer_noisy(x / row.temperature, token, row.seed, row.position, best);
      continue;
    }
    const Candidate c = {x, token};
    if (device::better(c, best)) best = c;
  }
  __shared__ Candidate of_warp[kWarps];
  __shared__ bool is_last;
  best = device::warp_best(best);
  if (threadIdx.x % device::kWarpSize == 0) of_warp[threadIdx.x / device::kWarpSize] = best;
  __syncthreads();
  const DrawWorkspace workspace = workspace_of(args);
  if (threadIdx.x == 0) {
    for (int w = 1; w < kWarps; w++) {
      if (device::better(of_warp[w], best)) best = of_warp[w];
    }
    workspace.of_chunk[static_cast<size_t>(blockIdx.y) * gridDim.x + blockIdx.x] = best;
    __threadfence();
    is_last = atomicAdd(&workspace.arrivals[blockIdx.y], 1) == static_cast<int>(gridDim.x) - 1;
    if (is_last) workspace.arrivals[blockIdx.y] = 0;
  }
  __syncthreads();
  if (!is_last || threadIdx.x >= device::kWarpSize) return;
  __threadfence();
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

unsigned chunks_of(int32_t vocab_size) {
  return static_cast<unsigned>((vocab_size + kChunk - 1) / kChunk);
}

}  // namespace

void apply_penalties_cuda(const PenaltyArgs& args, const Stream& stream) {
  if (args.num_rows == 0) return;
  apply_penalties<<<args.num_rows, kThreads, 0, stream.handle()>>>(args);
  LORIKEET_CHECK_CUDA(cudaGetLastError());
}

uint64_t unfiltered_draw_workspace(int32_t workspace_rows, int32_t vocab_size) {
  return static_cast<uint64_t>(workspace_rows + 63) / 64 * 64 * sizeof(int) +
         static_cast<uint64_t>(workspace_rows) * chunks_of(vocab_size) * sizeof(Candidate);
}

void draw_unfiltered_cuda(const UnfilteredDrawArgs& args, const Stream& stream) {
  CHECK_GT(args.shard.vocab_size, 0);
  CHECK_LE(args.num_rows, args.workspace_rows);
  if (args.num_rows == 0) return;
  draw_unfiltered<<<dim3(chunks_of(args.shard.vocab_size), args.num_rows), kThreads, 0, stream.handle()>>>(args);
  LORIKEET_CHECK_CUDA(cudaGetLastError());
}

void compare_draws_cuda(const CompareDrawsArgs& args, const Stream& stream) {
  if (args.num_rows == 0) return;
  compare_draws<<<(args.num_rows + kThreads - 1) / kThreads, kThreads, 0, stream.handle()>>>(args);
  LORIKEET_CHECK_CUDA(cudaGetLastError());
}

}  // namespace lorikeet::kernels
