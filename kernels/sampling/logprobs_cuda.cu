#include <algorithm>

#include "kernels/base/cuda_check.h"
#include "kernels/cuda/overlap_launch.cuh"
#include "kernels/sampling/logprobs_cuda.h"
#include "kernels/sampling/vocab_cut.cuh"

namespace lorikeet::kernels {
namespace {

constexpr int kThreads = 256;
constexpr int kWarps = kThreads / device::kWarpSize;
constexpr int kChunk = 4096;  // tokens of one CTA of the statistics

struct StatisticsWorkspace {
  int* arrivals;     // [rows]: CTAs that are done; 0 between launches
  float2* of_chunk;  // [rows, chunks]: largest, sum
};

__device__ StatisticsWorkspace workspace_of(const LogprobArgs& args) {
  int* arrivals = static_cast<int*>(args.workspace);
  return {arrivals, reinterpret_cast<float2*>(arrivals + (args.workspace_rows + 63) / 64 * 64)};
}

// CTA (chunk, row); the last CTA of a row to arrive joins the chunks in their order.
//   grid     (vocabulary / 4,096, rows), 256 threads, 32 registers, 64 B of shared memory; launched in the ordinary way
__global__ void __launch_bounds__(kThreads) logit_statistics(LogprobArgs args) {
  const float* logits = args.shard.logits + args.rows[blockIdx.y].logits_row * args.shard.stride;
  float x[kChunk / kThreads];
  float largest = -INFINITY;
#pragma unroll
  for (int i = 0; i < kChunk / kThreads; i++) {
    const int column = blockIdx.x * kChunk + i * kThreads + threadIdx.x;
    x[i] = column < args.shard.vocab_size ? device::clean(logits[column]) : -INFINITY;
    largest = fmaxf(largest, x[i]);
  }
  __shared__ float of_warp[kWarps];
  __shared__ float sums[kWarps];
  __shared__ bool is_last;
  largest = device::warp_max(largest);
  if (threadIdx.x % device::kWarpSize == 0) of_warp[threadIdx.x / device::kWarpSize] = largest;
  __syncthreads();
  for (int w = 0; w < kWarps; w++) largest = fmaxf(largest, of_warp[w]);
  float sum = 0;
#pragma unroll
  for (int i = 0; i < kChunk / kThreads; i++) sum += x[i] == -INFINITY ? 0.0F : expf(x[i] - largest);
  sum = device::warp_sum(sum);
  if (threadIdx.x % device::kWarpSize == 0) sums[threadIdx.x / device::kWarpSize] = sum;
  __syncthreads();
  if (threadIdx.x != 0) return;

  sum = 0;
  for (int w = 0; w < kWarps; w++) sum += sums[w];
  const StatisticsWorkspace workspace = workspace_of(args);
  float2* chunks = workspace.of_chunk + static_cast<size_t>(blockIdx.y) * gridDim.x;
  chunks[blockIdx.x] = make_float2(largest, sum);
  __threadfence();
  is_last = atomicAdd(&workspace.arrivals[blockIdx.y], 1) == static_cast<int>(gridDim.x) - 1;
  if (!is_last) return;
  workspace.arrivals[blockIdx.y] = 0;
  __threadfence();
  largest = -INFINITY;
  for (unsigned c = 0; c < gridDim.x; c++) largest = fmaxf(largest, __ldcg(&chunks[c]).x);
  sum = 0;
  for (unsigned c = 0; c < gridDim.x; c++) {
    const float2 chunk = __ldcg(&chunks[c]);
    if (chunk.y > 0) sum += chunk.y * expf(chunk.x - largest);
  }
  args.statistics[blockIdx.y].largest = largest;
  args.statistics[blockIdx.y].sum = sum;
}

struct Listing {
  CutArgs cut;
  Candidate* best;
  int32_t stride;
};

// CTA (chunk, row). Tokens about the cut are listed; the last CTA of a row puts these in order and reports the
// first.
//   grid     (vocabulary / 4,096, rows), 256 threads, 45 registers, 33 kB of shared memory (the list)
//   waits    for the kernel in front
//   cost     with its two predecessors 37 us a step at one row, 127 at 64 (20 log-probabilities); aim 25 and 60
__global__ void __launch_bounds__(device::kCutThreads) top_tokens(const __grid_constant__ Listing args) {
  device::allow_next_kernel();
  __shared__ unsigned long long entries[kCutListed];
  __shared__ unsigned long long of_warp[device::kCutWarps];
  __shared__ int placed;
  const device::CutRule rule(args.cut, blockIdx.y);
  const device::CutValues values(args.cut, rule);
  const device::OwnTokens tokens(values, blockIdx.x);
  device::wait_for_previous_kernel();
  if (!rule.asked) return;
  Candidate* best = args.best + static_cast<size_t>(blockIdx.y) * args.stride;
  if (!rule.by_count()) {  // all tokens are asked for
    tokens.for_each([&](float x, int token) { best[token - args.cut.begins[0]] = {x, token}; });
    return;
  }
  const CutWorkspace& workspace = args.cut.workspace;
  RowCut& shared_cut = workspace.cuts[blockIdx.y];
  RowCut cut = shared_cut;
  Candidate* list = workspace.list + static_cast<size_t>(blockIdx.y) * kCutListed;
  tokens.for_each([&](float x, int token) {
    if (device::bin_of(cut, x) > cut.last_bin) return;
    const int place = atomicAdd(&shared_cut.listed, 1);
    if (place < kCutListed) list[place] = {x, token};
  });
  if (!device::last_of_row(&workspace.arrivals[blockIdx.y])) return;
  cut.listed = __ldcg(&shared_cut.listed);
  if (cut.listed <= kCutListed) {
    device::CutList::sort(list, cut.listed, entries);
    for (int i = threadIdx.x; i < rule.top_k; i += device::kCutThreads) {
      best[i] = {device::CutList::value(entries[i]), device::CutList::token(entries[i])};
    }
    return;
  }
  const device::WholeRow<> whole(values, cut, of_warp);
  const uint32_t key = whole.key_of_rank(rule.top_k);
  const unsigned long long above = whole.sum([&](float x, int) { return device::ordered_key(x) > key ? 1ULL : 0ULL; });
  const uint32_t last = whole.last_of_ties(key, static_cast<unsigned long long>(rule.top_k) - above);
  if (threadIdx.x == 0) placed = 0;
  __syncthreads();
  whole.for_each([&](float x, int token) {
    const uint32_t own = device::ordered_key(x);
    if (own < key || (own == key && static_cast<uint32_t>(token) > last)) return;
    best[atomicAdd(&placed, 1)] = {x, token};
  });
}

// The logit that row `draw_index` had before the penalties, if they changed it.
__device__ float before_penalties(const TokenLogitArgs& args, int draw_index, int token, float now) {
  const DrawRow draw = args.draw_rows[draw_index];
  if (!draw.penalised()) return now;
  int low = draw.counts_begin;
  for (int high = draw.counts_end; low < high;) {
    const int middle = (low + high) / 2;
    if (args.counts[middle].token_id < token) {
      low = middle + 1;
    } else {
      high = middle;
    }
  }
  if (low < draw.counts_end && args.counts[low].token_id == token) return args.saved[low];
  if (draw.pending >= 0 && args.resolved[draw.pending] == token) return args.saved[args.num_counts + draw_index];
  return now;
}

__device__ float before_constraint(const TokenLogitArgs& args, const ConstrainedRow& row, int token, float now) {
  int low = row.biases_begin;
  for (int high = row.biases_end; low < high;) {
    const int middle = (low + high) / 2;
    if (args.biases[middle].token_id < token) {
      low = middle + 1;
    } else {
      high = middle;
    }
  }
  return low < row.biases_end && args.biases[low].token_id == token ? args.saved_of_biases[low] : now;
}

// One thread per row that wants the log-probability of its token: 256 threads, 20 registers; launched in the ordinary way.
__global__ void token_logits(TokenLogitArgs args) {
  const int i = blockIdx.x * blockDim.x + threadIdx.x;
  if (i >= args.num_rows) return;
  const LogprobRow row = args.rows[i];
  const int token = row.token >= 0 ? row.token : args.drawn[~row.token];
  const int column = token - args.shard.vocab_begin;
  float logit = -INFINITY;
  if (column >= 0 && column < args.shard.vocab_size) {
    logit = args.shard.logits[row.logits_row * args.shard.stride + column];
    if (row.draw_index >= 0) logit = before_penalties(args, row.draw_index, token, logit);
    if (row.constraint >= 0) logit = before_constraint(args, args.constrained[row.constraint], token, logit);
  }
  args.statistics[i].logit = logit;
}

// One CTA per row: rows, 256 threads, 32 registers, 64 B of shared memory; launched in the ordinary way.
__global__ void __launch_bounds__(kThreads) count_at_least(CountAtLeastArgs args) {
  const int row = blockIdx.x;
  float least = -INFINITY;  // as the ranks say that do not have the token
  for (int rank = 0; rank < args.ranks; rank++) {
    least = fmaxf(least, args.statistics[rank * args.num_rows + row].logit);
  }
  const float* logits = args.shard.logits + args.rows[row].logits_row * args.shard.stride;
  unsigned long long count = 0;
  for (int column = threadIdx.x; column < args.shard.vocab_size; column += kThreads) {
    count += logits[column] >= least ? 1 : 0;
  }
  __shared__ unsigned long long of_warp[kThreads / device::kWarpSize];
  count = device::block_sum(count, of_warp);
  if (threadIdx.x == 0) args.counts[row] = static_cast<int32_t>(count);
}

unsigned chunks_of(int32_t vocab_size) {
  return static_cast<unsigned>((vocab_size + kChunk - 1) / kChunk);
}

}  // namespace

uint64_t logit_statistics_workspace(int32_t workspace_rows, int32_t vocab_size) {
  return static_cast<uint64_t>(workspace_rows + 63) / 64 * 64 * sizeof(int) +
         static_cast<uint64_t>(workspace_rows) * chunks_of(vocab_size) * sizeof(float2);
}

void logit_statistics_cuda(const LogprobArgs& args, const Stream& stream) {
  CHECK_GT(args.shard.vocab_size, 0);
  CHECK_LE(args.num_rows, args.workspace_rows);
  if (args.num_rows == 0) return;
  logit_statistics<<<dim3(chunks_of(args.shard.vocab_size), args.num_rows), kThreads, 0, stream.handle()>>>(args);
  LORIKEET_CHECK_CUDA(cudaGetLastError());
}

void top_tokens_cuda(const TopTokensArgs& args, const Stream& stream) {
  Listing listing{};
  CutArgs& cut = listing.cut;
  cut.logits = args.shard.logits;
  cut.stride = args.shard.stride;
  cut.begins[0] = args.shard.vocab_begin;
  cut.begins[1] = args.shard.vocab_begin + args.shard.vocab_size;
  cut.workspace = CutWorkspace(args.workspace, args.shard.vocab_size);
  listing.stride = args.stride;
  for (int32_t first = 0; first < args.num_rows; first += kCutRows) {
    cut.lists = args.rows + first;
    cut.num_rows = std::min(kCutRows, args.num_rows - first);
    listing.best = args.best + static_cast<int64_t>(first) * args.stride;
    cut_vocab(cut, stream);
    device::launch_overlapped(top_tokens, dim3(cut.chunks(), static_cast<unsigned>(cut.num_rows)), device::kCutThreads,
                              0, stream.handle(), listing);
  }
}

void count_at_least_cuda(const CountAtLeastArgs& args, const Stream& stream) {
  if (args.num_rows == 0) return;
  count_at_least<<<args.num_rows, kThreads, 0, stream.handle()>>>(args);
  LORIKEET_CHECK_CUDA(cudaGetLastError());
}

void token_logits_cuda(const TokenLogitArgs& args, const Stream& stream) {
  if (args.num_rows == 0) return;
  token_logits<<<(args.num_rows + kThreads - 1) / kThreads, kThreads, 0, stream.handle()>>>(args);
  LORIKEET_CHECK_CUDA(cudaGetLastError());
}

}  // namespace lorikeet::kernels
