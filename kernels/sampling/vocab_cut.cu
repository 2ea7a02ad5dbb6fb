#include <algorithm>

#include "kernels/base/cuda_check.h"
#include "kernels/base/rounding.h"
#include "kernels/cuda/overlap_launch.cuh"
#include "kernels/peer/peer_row.cuh"
#include "kernels/sampling/vocab_cut.cuh"

namespace lorikeet::kernels {
namespace {

using device::CutRule;
using device::CutValues;
using device::OwnTokens;

constexpr float kLongest = 32;  // of the histogram, in nats: a token that far from the best has no mass

constexpr int kCutBlocks = 640;      // draw_filtered's that run at once: five on each of an H200's 132 multiprocessors
constexpr int kSearchedParts = 640;  // of a row, at most
constexpr int kRead = 4;             // batches that a thread of find_best asks for at a time

// The best of all ranks and the least, and whether all have `enough`, by the first warp of a CTA.
__device__ __forceinline__ void join_best(const CutArgs& args, Candidate& best, float& least, bool& enough) {
  peer::Row row(args.peers, blockIdx.y);
  const int lane = threadIdx.x;
  const uint32_t own = lane == 0   ? __float_as_uint(best.value)
                       : lane == 1 ? static_cast<uint32_t>(best.token_id)
                       : lane == 2 ? __float_as_uint(least)
                                   : static_cast<uint32_t>(enough);
  if (lane < 4) row.send(lane, own);
  row.for_each_other([&](int rank) {
    const uint32_t word = lane < 4 ? row.receive(rank, lane) : 0;
    const Candidate c = {__uint_as_float(__shfl_sync(device::kFullWarp, word, 0)),
                         static_cast<int32_t>(__shfl_sync(device::kFullWarp, word, 1))};
    if (device::better(c, best)) best = c;
    least = fminf(least, __uint_as_float(__shfl_sync(device::kFullWarp, word, 2)));
    enough = __shfl_sync(device::kFullWarp, word, 3) != 0 && enough;
  });
  row.next_turn();
  if (lane == 0) row.leave();
  if (__any_sync(device::kFullWarp, row.failed())) best = device::no_candidate();  // the row is not drawn from
}

// CTA (chunk, row). The last CTA of a row joins the chunks, and with kShared the ranks.
//   grid     (vocabulary / (1,024 batches), rows), 256 threads, 45 registers, 100 B of shared memory
//   waits    for the kernel in front; with kShared the last CTA of a row for those of the other ranks (peer_row.cuh)
template <bool kShared>
__global__ void __launch_bounds__(kCutThreads, kShared ? 1 : 5) find_best(const __grid_constant__ CutArgs args) {
  if (!kShared || !args.peers.shares_device) device::allow_next_kernel();
  device::wait_for_previous_kernel();
  const CutRule rule(args, blockIdx.y);
  if (!rule.asked) return;
  const CutWorkspace& workspace = args.workspace;
  const CutValues values(args, rule);
  const OwnTokens tokens(values);
  // The kernel behind this one counts from nothing.
  for (int bin = blockIdx.x * kCutThreads + threadIdx.x; bin < kCutBins; bin += gridDim.x * kCutThreads) {
    workspace.histogram[blockIdx.y * kCutBins + bin] = 0;
  }
  Candidate best = device::no_candidate();
  float least = INFINITY;
#pragma unroll 1
  for (int begin = 0; begin < args.batches; begin += kRead) {
    float logits[kRead][kCutBatch];
#pragma unroll
    for (int batch = 0; batch < kRead; batch++) {
      if (begin + batch < args.batches) {
        tokens.load(begin + batch, logits[batch]);
      } else {
        tokens.none(logits[batch]);
      }
    }
#pragma unroll
    for (int batch = 0; batch < kRead; batch++) {
      if (begin + batch < args.batches) tokens.clean_if_least(begin + batch, logits[batch]);
#pragma unroll
      for (int i = 0; i < kCutBatch; i++) {
        const float logit = logits[batch][i];
        const Candidate c = {logit, tokens.first(begin + batch) + i * kCutThreads};
        if (device::better(c, best)) best = c;
        if (logit > -INFINITY) least = fminf(least, logit);
      }
    }
  }
  const int in_chunk = device::parts_of_chunk(args.batches);
  const auto parts = static_cast<int>(gridDim.x) * in_chunk;
  float* best_of_part = workspace.best_of_part + static_cast<size_t>(blockIdx.y) * parts;
  __shared__ Candidate best_of_warp[kCutWarps];
  __shared__ float least_of_warp[kCutWarps];
  best = device::warp_best(best);
  least = -device::warp_max(-least);
  if (threadIdx.x % device::kWarpSize == 0) {
    const auto warp = threadIdx.x / device::kWarpSize;
    best_of_warp[warp] = best;
    least_of_warp[warp] = least;
    if (in_chunk > 1) best_of_part[blockIdx.x * in_chunk + warp] = best.value;
  }
  __syncthreads();
  const size_t first_chunk = static_cast<size_t>(blockIdx.y) * gridDim.x;
  if (threadIdx.x == 0) {
    for (int w = 1; w < kCutWarps; w++) {
      if (device::better(best_of_warp[w], best)) best = best_of_warp[w];
      least = fminf(least, least_of_warp[w]);
    }
    workspace.of_chunk[first_chunk + blockIdx.x] = best;
    workspace.least_of_chunk[first_chunk + blockIdx.x] = least;
    if (in_chunk == 1) best_of_part[blockIdx.x] = best.value;
  }
  if (!device::last_of_row(&workspace.arrivals[blockIdx.y])) return;
  bool enough = rule.by_count() && rule.top_k <= parts && parts <= kSearchedParts;
  if (threadIdx.x >= device::kWarpSize) return;
  const float last = enough ? device::last_of_best_parts<kSearchedParts>(best_of_part, parts, rule.top_k) : -INFINITY;
  best = device::no_candidate();
  least = INFINITY;
  for (unsigned chunk = threadIdx.x; chunk < gridDim.x; chunk += device::kWarpSize) {
    const float2 raw = __ldcg(reinterpret_cast<const float2*>(workspace.of_chunk) + first_chunk + chunk);
    const Candidate c = {raw.x, __float_as_int(raw.y)};
    if (device::better(c, best)) best = c;
    least = fminf(least, __ldcg(workspace.least_of_chunk + first_chunk + chunk));
  }
  best = device::warp_best(best);
  least = -device::warp_max(-least);
  if constexpr (kShared) join_best(args, best, least, enough);
  if (threadIdx.x != 0) return;
  best.value /= rule.divisor;
  RowCut cut{};
  cut.best = best;
  const float range = fminf(best.value - least / rule.divisor, kLongest);
  cut.bins_per_nat = range > 0 ? static_cast<float>(kCutBins - 1) / range : 1.0F;
  cut.least = rule.min_p > 0 ? best.value + logf(rule.min_p) : -INFINITY;
  // Until the histogram says otherwise.
  cut.first_bin = kCutBins;
  cut.last_bin = -1;
  if (enough) {
    cut.least = fmaxf(cut.least, last / rule.divisor);
    cut.first_bin = 0;
    cut.last_bin = kCutBins - 1;
  }
  cut.least_logit = device::least_logit_of(cut.least, rule.divisor);
  if (args.draws != nullptr && best.token_id != device::kNoToken) {
    device::NoisySearch search(args.draws[blockIdx.y]);
    search.offer_value(best.value, best.token_id);
    cut.floor = device::ordered_key(search.floor());
  }
  workspace.cuts[blockIdx.y] = cut;
}

// Puts the first bin at which the sum over the bins up to it is `wanted`, and the sum before that bin. By all threads.
struct BinFound {
  int bin;
  unsigned long long before;
};
__device__ __forceinline__ BinFound find_bin(const unsigned long long* histogram, double share,
                                             unsigned long long count, unsigned long long& total) {
  constexpr int kOwn = kCutBins / kCutThreads;
  __shared__ unsigned long long of_warp[kCutWarps];
  __shared__ BinFound found;
  const int lane = threadIdx.x % device::kWarpSize;
  const int warp = threadIdx.x / device::kWarpSize;
  unsigned long long own[kOwn];
  unsigned long long sum = 0;
#pragma unroll
  for (int i = 0; i < kOwn; i++) {
    own[i] = __ldcg(histogram + threadIdx.x * kOwn + i);
    sum += own[i];
  }
  unsigned long long before = sum;
#pragma unroll
  for (int offset = 1; offset < device::kWarpSize; offset *= 2) {
    const unsigned long long lower = __shfl_up_sync(device::kFullWarp, before, offset);
    if (lane >= offset) before += lower;
  }
  if (lane == device::kWarpSize - 1) of_warp[warp] = before;
  if (threadIdx.x == 0) found = {kCutBins - 1, 0};
  __syncthreads();
  before -= sum;
  total = 0;
  for (int w = 0; w < kCutWarps; w++) {
    if (w < warp) before += of_warp[w];
    total += of_warp[w];
  }
  const double wanted = count > 0 ? static_cast<double>(count) : share * static_cast<double>(total);
  const auto reached = [&](unsigned long long x) { return static_cast<double>(x) >= wanted; };
#pragma unroll
  for (int i = 0; i < kOwn; i++) {
    // With a share of nothing the first bin has reached it: the best token is in it.
    const bool first = threadIdx.x == 0 && i == 0;
    if (reached(before + own[i]) && (first || !reached(before))) {
      found = {static_cast<int>(threadIdx.x) * kOwn + i, before};
    }
    before += own[i];
  }
  __syncthreads();
  return found;
}

// Adds the other ranks' histograms to a row's, each thread to the bins that it reads in find_bin. False: a rank did not
// tell its own.
__device__ __forceinline__ bool join_histograms(const CutArgs& args, unsigned long long* histogram) {
  constexpr int kOwn = kCutBins / kCutThreads;
  peer::Row row(args.peers, blockIdx.y);
  const int first = threadIdx.x * kOwn;
  unsigned long long sums[kOwn];
#pragma unroll
  for (int i = 0; i < kOwn; i++) {
    sums[i] = __ldcg(histogram + first + i);
    row.send(2 * (first + i), static_cast<uint32_t>(sums[i]));
    row.send(2 * (first + i) + 1, static_cast<uint32_t>(sums[i] >> 32));
  }
  row.for_each_other([&](int rank) {
#pragma unroll
    for (int i = 0; i < kOwn; i++) sums[i] += row.receive_long(rank, 2 * (first + i));
  });
#pragma unroll
  for (int i = 0; i < kOwn; i++) histogram[first + i] = sums[i];
  row.next_turn();
  if (threadIdx.x == 0) row.leave();
  return __syncthreads_and(!row.failed()) != 0;
}

// CTA (chunk, row). The last CTA of a row joins the ranks with kShared, and finds the bins about the cut.
//   grid     (vocabulary / (1,024 batches), rows) with at most 4 batches, 256 threads, 39 registers (without kShared), 8 kB of shared memory
//            (the histogram)
//   waits    as find_best
template <bool kShared>
__global__ void __launch_bounds__(kCutThreads) count_distances(const __grid_constant__ CutArgs args) {
  if (!kShared || !args.peers.shares_device) device::allow_next_kernel();
  const CutRule rule(args, blockIdx.y);
  const CutValues values(args, rule);
  const OwnTokens tokens(values);
  float own[kCutBatch];
  tokens.load(0, own);
  device::wait_for_previous_kernel();
  if (!rule.asked || !(rule.by_count() || rule.by_mass())) return;
  RowCut& to = args.workspace.cuts[blockIdx.y];
  const RowCut cut = to;
  if (cut.best.token_id == device::kNoToken || cut.last_bin >= 0) return;  // there is no token, or the list is short
  // Of a bin: tokens, or the upper and the lower part of their mass.
  __shared__ uint32_t upper[kCutBins], lower[kCutBins];
  for (int bin = threadIdx.x; bin < kCutBins; bin += kCutThreads) upper[bin] = lower[bin] = 0;
  __syncthreads();
  const bool by_count = rule.by_count();
  const device::Quotient quotient(rule.divisor);
  uint32_t upper_at = device::shared_address(upper);
  uint32_t lower_at = device::shared_address(lower);
  asm volatile("" : "+r"(upper_at), "+r"(lower_at));  // or they are made anew for every token
  tokens.for_each_batch(args.batches, own, [&](const float(&logits)[kCutBatch], int) {
#pragma unroll
    for (int i = 0; i < kCutBatch; i++) {
      if (logits[i] < cut.least_logit) continue;
      const float x = quotient(logits[i]);
      if (!(x >= cut.least)) continue;  // less, or not a number
      const auto counter = static_cast<uint32_t>(device::bin_of(cut, x)) * sizeof(uint32_t);
      if (by_count) {
        device::add_shared(lower_at + counter, 1);
        continue;
      }
      const unsigned long long m = device::mass(device::distance_of(cut, x));
      if (m == 0) continue;
      const auto high = static_cast<uint32_t>(m >> device::kMassSplit);
      if (high > 0) device::add_shared(upper_at + counter, high);
      device::add_shared(lower_at + counter, static_cast<uint32_t>(m) & ((1U << device::kMassSplit) - 1));
    }
  });
  __syncthreads();
  unsigned long long* histogram = args.workspace.histogram + blockIdx.y * kCutBins;
  for (int bin = threadIdx.x; bin < kCutBins; bin += kCutThreads) {
    const unsigned long long sum = (static_cast<unsigned long long>(upper[bin]) << device::kMassSplit) + lower[bin];
    if (sum > 0) atomicAdd(&histogram[bin], sum);
  }
  if (!device::last_of_row(&args.workspace.arrivals[blockIdx.y])) return;
  if constexpr (kShared) {
    if (!join_histograms(args, histogram)) {
      if (threadIdx.x == 0) to.best = device::no_candidate();
      return;
    }
  }
  unsigned long long total = 0;
  const BinFound found = find_bin(histogram, rule.top_p, by_count ? rule.top_k : 0, total);
  if (threadIdx.x != 0) return;
  to.first_bin = by_count ? 0 : found.bin;
  to.last_bin = found.bin;
  to.above = found.before;
  to.total = total;
}

template <class T>
T* carve(unsigned char*& at, int64_t count) {
  T* begin = reinterpret_cast<T*>(at);
  at += round_up<uint64_t>(static_cast<uint64_t>(count) * sizeof(T), 16);
  return begin;
}

uint64_t lay_out(CutWorkspace& to, unsigned char* memory, int32_t vocab_size) {
  const int64_t chunks = divide_up(vocab_size, kCutLeastChunk) + kMaxVocabPieces;
  unsigned char* at = memory;
  to.cuts = carve<RowCut>(at, kCutRows);
  to.arrivals = carve<int32_t>(at, kCutRows);
  to.histogram = carve<unsigned long long>(at, int64_t{kCutRows} * kCutBins);
  to.list = carve<Candidate>(at, int64_t{kCutRows} * kCutListed);
  to.of_chunk = carve<Candidate>(at, kCutRows * chunks);
  to.least_of_chunk = carve<float>(at, kCutRows * chunks);
  to.best_of_part = carve<float>(at, kCutRows * chunks * kCutWarps);
  return static_cast<uint64_t>(at - memory);
}

}  // namespace

CutWorkspace::CutWorkspace(void* memory, int32_t vocab_size) {
  lay_out(*this, static_cast<unsigned char*>(memory), vocab_size);
}

uint64_t cut_workspace_bytes(int32_t vocab_size) {
  CutWorkspace workspace;
  return lay_out(workspace, nullptr, vocab_size);
}

void CutArgs::choose_batches() {
  batches = 1;
  batches = divide_up(static_cast<int32_t>(chunks()) * num_rows, kCutBlocks);
}

void cut_vocab(const CutArgs& args, const Stream& stream) {
  CHECK_GT(args.vocab_size(), 0);
  CHECK_GT(args.num_rows, 0);
  CHECK_LE(args.num_rows, kCutRows);
  const auto grid_of = [](const CutArgs& of) { return dim3(of.chunks(), static_cast<unsigned>(of.num_rows)); };
  CutArgs counted = args;
  counted.batches = std::min(args.batches, kCutCountedBatches);
  const auto launch = [&](auto* best, auto* distances) {
    best<<<grid_of(args), kCutThreads, 0, stream.handle()>>>(args);
    LORIKEET_CHECK_CUDA(cudaGetLastError());
    device::launch_overlapped(distances, grid_of(counted), kCutThreads, 0, stream.handle(), counted);
  };
  if (args.shared()) {
    launch(find_best<true>, count_distances<true>);
  } else {
    launch(find_best<false>, count_distances<false>);
  }
}

}  // namespace lorikeet::kernels
