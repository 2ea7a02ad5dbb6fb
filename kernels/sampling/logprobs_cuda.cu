#include <algorithm>

#include "kernels/base/cuda_check.h"
#include "kernels/cuda/overlap_launch.cuh"
#include "kernels/sampling/cut_list.cuh"
#include "kernels/sampling/logprobs_cuda.h"

namespace lorikeet::kernels {
namespace {

constexpr int kThreads = kCutThreads;
constexpr int kWarps = kCutWarps;
constexpr int kBatches = 4;  // of a thread of the statistics: sums of floats depend on it
constexpr int kChunk = kBatches * kCutLeastChunk;
constexpr int kSearchedParts = 320;  // of a row, at most

int32_t chunks_of(int32_t vocab_size) {
  return (vocab_size + kChunk - 1) / kChunk;
}

// A row's cuts and its parts' best logits are as find_best leaves them: the lists of best tokens begin there.
struct StatisticsWorkspace {
  int32_t* arrivals;    // [rows]: CTAs that are done; 0 between launches
  float2* of_chunk;     // [rows, chunks]: largest, sum
  RowCut* cuts;         // [rows]
  float* best_of_part;  // [rows, chunks, kWarps]

  StatisticsWorkspace(void* memory, int32_t rows, int32_t vocab_size) {
    const int64_t chunks = int64_t{rows} * chunks_of(vocab_size);
    arrivals = static_cast<int32_t*>(memory);
    of_chunk = reinterpret_cast<float2*>(arrivals + (rows + 63) / 64 * 64);
    cuts = reinterpret_cast<RowCut*>(of_chunk + (chunks + 1) / 2 * 2);
    best_of_part = reinterpret_cast<float*>(cuts + rows);
  }
  static uint64_t bytes(int32_t rows, int32_t vocab_size) {
    const StatisticsWorkspace at(nullptr, rows, vocab_size);
    const int64_t parts = int64_t{rows} * chunks_of(vocab_size) * kWarps;
    return reinterpret_cast<uintptr_t>(at.best_of_part + parts);
  }
};

// Whether a row's parts give the cut of a list of `top` tokens.
__host__ __device__ bool parts_cut(int32_t top, int32_t parts) {
  return top <= parts && parts <= kSearchedParts;
}

struct Statistics {
  LogprobArgs args;
  StatisticsWorkspace workspace;
};

// CTA (chunk, row); the last CTA of a row to arrive joins the chunks in their order, and finds where a short list of best
// tokens is cut.
//   grid     (vocabulary / 4,096, rows), 256 threads, 32 registers, 68 B of shared memory; launched in the ordinary way
__global__ void __launch_bounds__(kThreads) logit_statistics(const __grid_constant__ Statistics statistics) {
  const LogprobArgs& args = statistics.args;
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
  largest = device::warp_max(largest);
  const StatisticsWorkspace& workspace = statistics.workspace;
  const auto parts = static_cast<int>(gridDim.x) * kWarps;
  float* best_of_part = workspace.best_of_part + static_cast<size_t>(blockIdx.y) * parts;
  if (threadIdx.x % device::kWarpSize == 0) {
    const auto warp = threadIdx.x / device::kWarpSize;
    of_warp[warp] = largest;
    best_of_part[blockIdx.x * kWarps + warp] = largest;
  }
  __syncthreads();
  for (int w = 0; w < kWarps; w++) largest = fmaxf(largest, of_warp[w]);
  float sum = 0;
#pragma unroll
  for (int i = 0; i < kChunk / kThreads; i++) sum += x[i] == -INFINITY ? 0.0F : expf(x[i] - largest);
  sum = device::warp_sum(sum);
  if (threadIdx.x % device::kWarpSize == 0) sums[threadIdx.x / device::kWarpSize] = sum;
  __syncthreads();
  float2* chunks = workspace.of_chunk + static_cast<size_t>(blockIdx.y) * gridDim.x;
  if (threadIdx.x == 0) {
    sum = 0;
    for (int w = 0; w < kWarps; w++) sum += sums[w];
    chunks[blockIdx.x] = make_float2(largest, sum);
  }
  if (!device::last_of_row(&workspace.arrivals[blockIdx.y])) return;
  if (threadIdx.x >= device::kWarpSize) return;
  const int top = args.rows[blockIdx.y].top;
  float last = -INFINITY;
  if (top > 0 && parts_cut(top, parts)) last = device::last_of_best_parts<kSearchedParts>(best_of_part, parts, top);
  largest = -INFINITY;
  for (unsigned c = threadIdx.x; c < gridDim.x; c += device::kWarpSize) largest = fmaxf(largest, __ldcg(&chunks[c]).x);
  largest = device::warp_max(largest);
  sum = 0;
  for (unsigned first = 0; first < gridDim.x; first += device::kWarpSize) {
    const unsigned c = first + threadIdx.x;
    const float2 chunk = c < gridDim.x ? __ldcg(&chunks[c]) : make_float2(largest, 0);
    const float share = chunk.y > 0 ? expf(chunk.x - largest) : 0.0F;
    for (int lane = 0; lane < device::kWarpSize; lane++) {
      sum = fmaf(__shfl_sync(device::kFullWarp, chunk.y, lane), __shfl_sync(device::kFullWarp, share, lane), sum);
    }
  }
  if (threadIdx.x != 0) return;
  args.statistics[blockIdx.y].largest = largest;
  args.statistics[blockIdx.y].sum = sum;
  RowCut cut{};
  cut.best.value = largest;
  cut.bins_per_nat = 1;
  cut.least = last;
  cut.least_logit = device::least_logit_of(last, 1);
  cut.last_bin = kCutBins - 1;
  workspace.cuts[blockIdx.y] = cut;
}

struct Listing {
  CutArgs cut;
  Candidate* best;
  int32_t stride;
};

// CTA (chunk, row). Tokens about the cut are listed; the last CTA of a row reports the best of them.
//   grid     (vocabulary / (1,024 batches), rows), 256 threads, 47 registers, 33 kB of shared memory (the list)
//   waits    for the kernel in front
__global__ void __launch_bounds__(kCutThreads) top_tokens(const __grid_constant__ Listing args) {
  device::allow_next_kernel();
  union Shared {
    unsigned long long entries[kCutListed];
    device::OwnListed::Shared own_listed;
  };
  __shared__ __align__(16) unsigned char shared_bytes[sizeof(Shared)];
  auto& shared = *reinterpret_cast<Shared*>(shared_bytes);
  __shared__ unsigned long long of_warp[kCutWarps];
  __shared__ int placed;
  const device::CutRule rule(args.cut, blockIdx.y);
  const device::CutValues values(args.cut, rule);
  const device::OwnTokens tokens(values);
  float first_logits[kCutBatch];
  tokens.load(0, first_logits);
  device::wait_for_previous_kernel();
  if (!rule.asked) return;
  Candidate* best = args.best + static_cast<size_t>(blockIdx.y) * args.stride;
  const CutWorkspace& workspace = args.cut.workspace;
  RowCut& shared_cut = workspace.cuts[blockIdx.y];
  RowCut cut = shared_cut;
  Candidate* list = workspace.list + static_cast<size_t>(blockIdx.y) * kCutListed;
  const device::OwnListed listed(shared.own_listed, shared_cut, list);
  __syncthreads();
  const int batches = rule.by_count() && device::part_is_out(args.cut, cut) ? 0 : args.cut.batches;
  tokens.for_each_batch(batches, first_logits, [&](const float(&logits)[kCutBatch], int first) {
#pragma unroll
    for (int i = 0; i < kCutBatch; i++) {
      const float x = logits[i];
      const int token = first + i * kCutThreads;
      if (!rule.by_count()) {  // all tokens are asked for
        if (x == x) best[token - args.cut.begins[0]] = {x, token};
      } else if (x >= cut.least && device::bin_of(cut, x) <= cut.last_bin) {
        listed.add({x, token});
      }
    }
  });
  if (!rule.by_count()) return;
  listed.flush();
  if (!device::last_of_row(&workspace.arrivals[blockIdx.y])) return;
  cut.listed = __ldcg(&shared_cut.listed);
  if (cut.listed <= kCutListed) {
    device::CutList::load(list, cut.listed, shared.entries);
    __syncthreads();
    if (cut.listed <= kCutThreads) {
      if (static_cast<int>(threadIdx.x) >= cut.listed) return;
      const unsigned long long entry = shared.entries[threadIdx.x];
      int place = 0;
      for (int i = 0; i < cut.listed; i++) place += shared.entries[i] > entry ? 1 : 0;
      if (place < rule.top_k) best[place] = {device::CutList::value(entry), device::CutList::token(entry)};
      return;
    }
    device::CutList::sort(cut.listed, shared.entries);
    for (int i = threadIdx.x; i < rule.top_k; i += kCutThreads) {
      best[i] = {device::CutList::value(shared.entries[i]), device::CutList::token(shared.entries[i])};
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

}  // namespace

uint64_t logit_statistics_workspace(int32_t workspace_rows, int32_t vocab_size) {
  return StatisticsWorkspace::bytes(workspace_rows, vocab_size);
}

void logit_statistics_cuda(const LogprobArgs& args, const Stream& stream) {
  CHECK_GT(args.shard.vocab_size, 0);
  CHECK_LE(args.num_rows, args.workspace_rows);
  if (args.num_rows == 0) return;
  const dim3 grid(static_cast<unsigned>(chunks_of(args.shard.vocab_size)), static_cast<unsigned>(args.num_rows));
  logit_statistics<<<grid, kThreads, 0, stream.handle()>>>(
      {args, StatisticsWorkspace(args.workspace, args.workspace_rows, args.shard.vocab_size)});
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
  const int32_t parts = chunks_of(args.shard.vocab_size) * kWarps;
  const bool is_cut = args.statistics != nullptr && parts_cut(args.stride, parts);
  for (int32_t first = 0; first < args.num_rows; first += kCutRows) {
    cut.lists = args.rows + first;
    cut.num_rows = std::min(kCutRows, args.num_rows - first);
    listing.best = args.best + static_cast<int64_t>(first) * args.stride;
    if (is_cut) {
      const StatisticsWorkspace made(args.statistics, args.statistics_rows, args.shard.vocab_size);
      cut.workspace.cuts = made.cuts + first;
      cut.workspace.best_of_part = made.best_of_part + int64_t{first} * parts;
      cut.batches = kBatches;
    } else {
      cut.choose_batches();
      cut_vocab(cut, stream);
    }
    device::launch_overlapped(top_tokens, dim3(cut.chunks(), static_cast<unsigned>(cut.num_rows)), kCutThreads, 0,
                              stream.handle(), listing);
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
