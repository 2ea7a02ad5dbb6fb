#include <algorithm>

#include "kernels/base/cuda_check.h"
#include "kernels/cuda/overlap_launch.cuh"
#include "kernels/peer/peer_row.cuh"
#include "kernels/sampling/listed_draw.cuh"

namespace lorikeet::kernels {
namespace {

using device::CutRule;
using device::CutValues;
using device::DrawShared;
using device::NoisySearch;
using device::OwnListed;

struct Drawing {
  CutArgs cut;
  int32_t* drawn;
};

// The sum over the ranks: by all threads of a row's CTA, behind a barrier.
struct SumOfRanks {
  peer::Row* row;
  __device__ __forceinline__ unsigned long long operator()(unsigned long long own) const {
    if (threadIdx.x == 0) {
      row->send(0, static_cast<uint32_t>(own));
      row->send(1, static_cast<uint32_t>(own >> 32));
    }
    row->for_each_other([&](int rank) { own += row->receive_long(rank, 0); });
    row->next_turn();
    return own;
  }
};

// The end of a row of which each rank has a part: `search` has the best of this one's tokens that are kept for sure.
// Words of the exchange: tokens about the cut, the best of the sure ones (two), and those about the cut, two words each.
__device__ __forceinline__ void end_shared_draw(const Drawing& args, const CutRule& rule, RowCut& cut, Candidate* list,
                                                DrawShared& shared, NoisySearch& search) {
  constexpr int kHeader = 3;
  constexpr int kMostTold = (kMostPeerRowWords - kHeader) / 2;
  peer::Row row(args.cut.peers, blockIdx.y);
  search.best = device::block_best(search.best, shared.best_of_warp);
  const int thread = static_cast<int>(threadIdx.x);
  if (thread == 0) {
    row.send(0, static_cast<uint32_t>(cut.listed));
    row.send(1, __float_as_uint(search.best.value));
    row.send(2, static_cast<uint32_t>(search.best.token_id));
  }
  if (cut.listed <= kMostTold) {
    for (int i = thread; i < cut.listed; i += kCutThreads) {
      const float2 raw = __ldcg(reinterpret_cast<const float2*>(list) + i);
      row.send(kHeader + 2 * i, __float_as_uint(raw.x));
      row.send(kHeader + 2 * i + 1, __float_as_uint(raw.y));
    }
  }
  int listed = cut.listed;
  bool all_told = cut.listed <= kMostTold;
  row.for_each_other([&](int rank) {
    const auto count = static_cast<int>(row.receive(rank, 0));
    search.take({__uint_as_float(row.receive(rank, 1)), static_cast<int32_t>(row.receive(rank, 2))});
    all_told = all_told && count >= 0 && count <= kMostTold && listed + count <= kCutListed;
    if (all_told) {
      for (int i = thread; i < count; i += kCutThreads) {
        const uint32_t value = row.receive(rank, kHeader + 2 * i);
        list[listed + i] = {__uint_as_float(value), static_cast<int32_t>(row.receive(rank, kHeader + 2 * i + 1))};
      }
      listed += count;
    }
  });
  row.next_turn();
  if (__syncthreads_and(!row.failed()) == 0) {
    search.best = device::no_candidate();
  } else if (all_told) {
    cut.listed = listed;
    search.best = device::draw_listed(rule, cut, list, shared, search);
  } else {
    search.best = device::draw_slowly(args.cut, rule, cut, shared, search, SumOfRanks{&row});
    if (thread == 0) {
      row.send(0, __float_as_uint(search.best.value));
      row.send(1, static_cast<uint32_t>(search.best.token_id));
    }
    row.for_each_other([&](int rank) {
      const uint32_t value = row.receive(rank, 0);
      search.take({__uint_as_float(value), static_cast<int32_t>(row.receive(rank, 1))});
    });
    row.next_turn();
  }
  if (thread != 0) return;
  row.leave();
  args.drawn[args.cut.draws[blockIdx.y].draw_row] = device::drawn_token(search.best);
}

// Where a logit lies in the histogram, without a division: far enough from the cut, that is all there is to know.
class RoughBin {
 public:
  __device__ __forceinline__ RoughBin(const CutRule& rule, const RowCut& cut)
      : scale_(-cut.bins_per_nat / rule.divisor), offset_(cut.best.value * cut.bins_per_nat) {
    // Values near to the cut lie no further than the histogram is long from the best one.
    const float error = 1e-6F * (2 * fabsf(cut.best.value) + 40) * cut.bins_per_nat + 1e-3F;
    const float kept =
        cut.first_bin < kCutBins ? static_cast<float>(cut.first_bin) : (cut.best.value - cut.least) * cut.bins_per_nat;
    kept_below_ = kept - error;
    if (cut.last_bin >= 0 && cut.last_bin + 1 < kCutBins) out_above_ = static_cast<float>(cut.last_bin + 1) + error;
  }
  __device__ __forceinline__ float of(float logit) const { return fmaf(logit, scale_, offset_); }
  // Neither: the exact bin decides.
  __device__ __forceinline__ bool kept(float bin) const { return bin < kept_below_; }
  __device__ __forceinline__ bool out(float bin) const { return bin > out_above_; }

 private:
  const float scale_;
  const float offset_;
  float kept_below_;
  float out_above_ = INFINITY;
};

// Draws from those of a CTA's tokens that are kept for sure, and lists those about the cut.
__device__ __forceinline__ void draw_from_chunk(const CutArgs& args, const CutRule& rule,
                                                const device::OwnTokens& tokens, float (&first)[kCutBatch],
                                                RowCut& shared_cut, const OwnListed& listed, NoisySearch& search) {
  const RowCut cut = shared_cut;
  const RoughBin rough(rule, cut);
  const int batches = device::part_is_out(args, cut) ? 0 : args.batches;
  tokens.for_each_batch(batches, first, [&](const float(&logits)[kCutBatch], int first_token) {
    // What other warps have found lets this one pass over more tokens; it changes no result.
    const uint32_t floor = __ldcg(&shared_cut.floor);
    unsigned sure = 0;
    unsigned open = 0;
#pragma unroll
    for (int i = 0; i < kCutBatch; i++) {
      const float bin = rough.of(logits[i]);
      if (rough.kept(bin)) {
        sure |= 1U << i;
      } else if (!(logits[i] < cut.least_logit || rough.out(bin))) {
        open |= 1U << i;
      }
    }
    for (; open != 0; open &= open - 1) {  // few
      const int i = __ffs(static_cast<int>(open)) - 1;
      const float x = device::pick(logits, i) / rule.divisor;
      if (!(x >= cut.least)) continue;
      const int bin = cut.first_bin < kCutBins ? device::bin_of(cut, x) : -1;
      if (bin < cut.first_bin) {
        sure |= 1U << i;
      } else if (bin <= cut.last_bin) {
        listed.add({x, first_token + i * kCutThreads});
      }
    }
    if (sure == 0) return;
    search.raise_floor(device::of_ordered_key(floor));
    const float before = search.floor();
    search.offer(logits, first_token, kCutThreads, sure);
    if (search.floor() > before) atomicMax(&shared_cut.floor, device::ordered_key(search.floor()));
  });
}

// CTA (chunk, row). Tokens that are kept for sure are drawn from at once, those about the cut are listed; the last
// CTA of a row decides which of these are kept, with kShared of those of all ranks, and ends the draw.
//   grid     (vocabulary / (1,024 batches), rows), 256 threads, 48 registers, 35 kB of shared memory (the list)
//   waits    for the kernel in front; with kShared the last CTA of a row for those of the other ranks (peer_row.cuh)
template <bool kShared>
__global__ void __launch_bounds__(kCutThreads, 5) draw_filtered(const __grid_constant__ Drawing args) {
  if (!kShared || !args.cut.peers.shares_device) device::allow_next_kernel();
  __shared__ __align__(16) unsigned char shared_bytes[sizeof(DrawShared)];
  auto& shared = *reinterpret_cast<DrawShared*>(shared_bytes);
  const CutRule rule(args.cut, blockIdx.y);
  const CutValues values(args.cut, rule);
  const device::OwnTokens tokens(values);
  float first[kCutBatch];
  tokens.load(0, first);
  const DrawRow& row = args.cut.draws[blockIdx.y];
  NoisySearch search(row);
  device::wait_for_previous_kernel();
  if (!rule.asked) return;
  const CutWorkspace& workspace = args.cut.workspace;
  RowCut& shared_cut = workspace.cuts[blockIdx.y];
  if (shared_cut.best.token_id == device::kNoToken) {
    if (blockIdx.x == 0 && threadIdx.x == 0) args.drawn[row.draw_row] = -1;
    return;
  }
  Candidate* list = workspace.list + static_cast<size_t>(blockIdx.y) * kCutListed;
  const OwnListed listed(shared.own_listed, shared_cut, list);
  __syncthreads();
  draw_from_chunk(args.cut, rule, tokens, first, shared_cut, listed, search);
  listed.flush();
  const Candidate own = device::block_best(search.best, shared.best_of_warp);
  Candidate* of_chunk = workspace.of_chunk + static_cast<size_t>(blockIdx.y) * gridDim.x;
  if (threadIdx.x == 0) of_chunk[blockIdx.x] = own;
  if (!device::last_of_row(&workspace.arrivals[blockIdx.y])) return;

  RowCut cut = shared_cut;
  cut.listed = __ldcg(&shared_cut.listed);
  search.best = device::no_candidate();
  for (unsigned chunk = threadIdx.x; chunk < gridDim.x; chunk += kCutThreads) {
    const float2 raw = __ldcg(reinterpret_cast<const float2*>(of_chunk) + chunk);
    search.take({raw.x, __float_as_int(raw.y)});
  }
  if constexpr (kShared) return end_shared_draw(args, rule, cut, list, shared, search);
  Candidate winner;
  if (cut.listed <= kCutListed) {
    winner = device::draw_listed(rule, cut, list, shared, search);
  } else {
    winner = device::draw_slowly(args.cut, rule, cut, shared, search, device::OwnSum{});
  }
  if (threadIdx.x == 0) args.drawn[row.draw_row] = device::drawn_token(winner);
}

}  // namespace

void draw_filtered_cuda(const FilteredDrawArgs& args, const Stream& stream) {
  CHECK_GE(args.pieces, 1);
  CHECK_LE(args.pieces, kMaxVocabPieces);
  Drawing drawing{};
  drawing.drawn = args.drawn;
  CutArgs& cut = drawing.cut;
  cut.logits = args.logits;
  cut.piece_stride = args.piece_stride;
  cut.stride = args.stride;
  cut.first_logits_row = args.first_logits_row;
  cut.pieces = args.pieces;
  std::copy(std::begin(args.vocab_begins), std::end(args.vocab_begins), std::begin(cut.begins));
  cut.workspace = CutWorkspace(args.workspace, cut.vocab_size());
  if (args.peers != nullptr) {
    CHECK_EQ(args.pieces, 1);
    CHECK_GE(args.peers->ranks, 2);
    cut.peers = *args.peers;
    cut.tokens_of_peers = args.tokens_of_peers;
  }
  for (int32_t first = 0; first < args.num_rows; first += kCutRows) {
    cut.draws = args.rows + first;
    cut.num_rows = std::min(kCutRows, args.num_rows - first);
    cut.choose_batches();
    cut_vocab(cut, stream);
    device::launch_overlapped(cut.shared() ? draw_filtered<true> : draw_filtered<false>,
                              dim3(cut.chunks(), static_cast<unsigned>(cut.num_rows)), kCutThreads, 0, stream.handle(),
                              drawing);
  }
}

uint64_t vocab_cut_workspace(int32_t vocab_size) {
  return cut_workspace_bytes(vocab_size);
}

}  // namespace lorikeet::kernels
