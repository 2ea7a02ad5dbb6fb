#include <algorithm>

#include "kernels/base/cuda_check.h"
#include "kernels/cuda/overlap_launch.cuh"
#include "kernels/peer/peer_row.cuh"
#include "kernels/sampling/vocab_cut.cuh"

namespace lorikeet::kernels {
namespace {

using device::CutList;
using device::CutRule;
using device::CutValues;
using device::kCutThreads;
using device::kCutWarps;

struct Drawing {
  CutArgs cut;
  int32_t* drawn;
};

struct DrawShared {
  unsigned long long entries[kCutListed];
  unsigned long long of_warp[kCutWarps];
  Candidate best_of_warp[kCutWarps];
};

// A row's tokens in a draw.
struct Noisy {
  uint64_t seed;
  int32_t position;
  Candidate best = device::no_candidate();

  __device__ __forceinline__ void take(Candidate c) {
    if (device::better(c, best)) best = c;
  }
  __device__ __forceinline__ void offer(float x, int token) { device::offer_noisy(x, token, seed, position, best); }
};

// The sum over the threads before this one.
__device__ __forceinline__ unsigned long long sum_before(unsigned long long own,
                                                         unsigned long long (&of_warp)[kCutWarps]) {
  const int lane = threadIdx.x % device::kWarpSize;
  unsigned long long before = own;
#pragma unroll
  for (int offset = 1; offset < device::kWarpSize; offset *= 2) {
    const unsigned long long lower = __shfl_up_sync(device::kFullWarp, before, offset);
    if (lane >= offset) before += lower;
  }
  __syncthreads();
  if (lane == device::kWarpSize - 1) of_warp[threadIdx.x / device::kWarpSize] = before;
  __syncthreads();
  before -= own;
  for (int w = 0; w < static_cast<int>(threadIdx.x) / device::kWarpSize; w++) before += of_warp[w];
  return before;
}

// Offers those tokens about the cut that stay. By all threads of a CTA.
__device__ __forceinline__ void offer_listed(const CutRule& rule, const RowCut& cut, const Candidate* list,
                                             DrawShared& shared, Noisy& noisy) {
  const unsigned long long* entries = shared.entries;
  const int count = cut.listed;
  CutList::sort(list, count, shared.entries);
  // What ties with the last of top_k stays.
  const uint32_t lowest = rule.by_count() && count > 0 ? CutList::key(entries[min(rule.top_k, count) - 1]) : 0;
  const int own = (count + kCutThreads - 1) / kCutThreads;
  const int begin = min(count, static_cast<int>(threadIdx.x) * own);
  const int end = min(count, begin + own);
  unsigned long long mass = 0;
  const auto mass_of = [&](int i) {
    return CutList::key(entries[i]) < lowest ? 0ULL
                                             : device::mass(device::distance_of(cut, CutList::value(entries[i])));
  };
  if (rule.by_mass()) {
    for (int i = begin; i < end; i++) mass += mass_of(i);
  }
  unsigned long long before = cut.above + sum_before(mass, shared.of_warp);
  const unsigned long long total = rule.by_count() ? device::block_sum(mass, shared.of_warp) : cut.total;
  // A token stays while those better than it are less than top_p together; the best one always does.
  const double kept = static_cast<double>(rule.top_p) * static_cast<double>(total);
  for (int i = begin; i < end && CutList::key(entries[i]) >= lowest; i++) {
    if (rule.by_mass()) {
      if (static_cast<double>(before) >= kept && before > 0) return;
      before += mass_of(i);
    }
    noisy.offer(CutList::value(entries[i]), CutList::token(entries[i]));
  }
}

// The same for rows of which more tokens lie about the cut than the list holds: of all tokens, kept ones included.
template <class AllOf>
__device__ __noinline__ void offer_slowly(const CutRule& rule, const CutValues& values, const RowCut& cut,
                                          DrawShared& shared, Noisy& noisy, AllOf all_of) {
  const device::WholeRow<AllOf> whole(values, cut, shared.of_warp, all_of);
  uint32_t lowest = rule.by_count() ? whole.key_of_rank(rule.top_k) : 0;
  uint32_t last_tie = static_cast<uint32_t>(device::kNoToken);  // of the tokens with key `lowest`, ids up to this stay
  if (rule.by_mass()) {
    const auto mass_above = [&](uint32_t t) {
      return whole.sum([&](float x, int) {
        const uint32_t key = device::ordered_key(x);
        return key >= lowest && key > t ? device::mass(device::distance_of(cut, x)) : 0ULL;
      });
    };
    const unsigned long long total = rule.by_count() ? whole.sum([&](float x, int) {
      return device::ordered_key(x) >= lowest ? device::mass(device::distance_of(cut, x)) : 0ULL;
    })
                                                     : cut.total;
    const double kept = static_cast<double>(rule.top_p) * static_cast<double>(total);
    const uint32_t at =
        device::WholeRow<>::smallest(32, [&](uint32_t t) { return static_cast<double>(mass_above(t)) < kept; });
    if (at >= lowest) {
      lowest = at;
      const unsigned long long each = device::mass(device::distance_of(cut, device::of_ordered_key(at)));
      const double missing = kept - static_cast<double>(mass_above(at));
      const double wanted = each > 0 ? ceil(missing / static_cast<double>(each)) : 1;
      last_tie = whole.last_of_ties(at, static_cast<unsigned long long>(fmin(fmax(wanted, 1), 0x1p31)));
    }
  }
  whole.for_each([&](float x, int token) {
    const uint32_t key = device::ordered_key(x);
    if (key > lowest || (key == lowest && static_cast<uint32_t>(token) <= last_tie)) noisy.offer(x, token);
  });
}

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

// The end of a row of which each rank has a part: `noisy` has the best of this one's tokens that are kept for sure.
// Words of the exchange: tokens about the cut, the best of the sure ones (two), and those about the cut, two words each.
__device__ __forceinline__ void end_shared_draw(const Drawing& args, const CutRule& rule, const CutValues& values,
                                                RowCut& cut, Candidate* list, DrawShared& shared, Noisy& noisy) {
  constexpr int kHeader = 3;
  constexpr int kMostTold = (kMostPeerRowWords - kHeader) / 2;
  peer::Row row(args.cut.peers, blockIdx.y);
  noisy.best = device::block_best(noisy.best, shared.best_of_warp);
  const int thread = static_cast<int>(threadIdx.x);
  if (thread == 0) {
    row.send(0, static_cast<uint32_t>(cut.listed));
    row.send(1, __float_as_uint(noisy.best.value));
    row.send(2, static_cast<uint32_t>(noisy.best.token_id));
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
    noisy.take({__uint_as_float(row.receive(rank, 1)), static_cast<int32_t>(row.receive(rank, 2))});
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
    noisy.best = device::no_candidate();
  } else if (all_told) {
    cut.listed = listed;
    offer_listed(rule, cut, list, shared, noisy);
    noisy.best = device::block_best(noisy.best, shared.best_of_warp);
  } else {
    offer_slowly(rule, values, cut, shared, noisy, SumOfRanks{&row});
    noisy.best = device::block_best(noisy.best, shared.best_of_warp);
    if (thread == 0) {
      row.send(0, __float_as_uint(noisy.best.value));
      row.send(1, static_cast<uint32_t>(noisy.best.token_id));
    }
    row.for_each_other([&](int rank) {
      const uint32_t value = row.receive(rank, 0);
      noisy.take({__uint_as_float(value), static_cast<int32_t>(row.receive(rank, 1))});
    });
    row.next_turn();
  }
  if (thread != 0) return;
  row.leave();
  args.drawn[args.cut.draws[blockIdx.y].draw_row] = device::drawn_token(noisy.best);
}

// CTA (chunk, row). Tokens that are kept for sure are drawn from at once, those about the cut are listed; the last
// CTA of a row puts these in order, with kShared those of all ranks, and ends the draw.
//   grid     (vocabulary / 4,096, rows), 256 threads, 48 registers (without kShared), 33 kB of shared memory (the list)
//   waits    for the kernel in front; with kShared the last CTA of a row for those of the other ranks (peer_row.cuh)
//   cost     with its two predecessors 42 us a step above temperature alone at one row, 130 at 64 (top_p), over two ranks 55 and 91; aim 25 and 60
template <bool kShared>
__global__ void __launch_bounds__(kCutThreads) draw_filtered(const __grid_constant__ Drawing args) {
  if (!kShared || !args.cut.peers.shares_device) device::allow_next_kernel();
  __shared__ __align__(16) unsigned char shared_bytes[sizeof(DrawShared)];
  auto& shared = *reinterpret_cast<DrawShared*>(shared_bytes);
  const CutRule rule(args.cut, blockIdx.y);
  const CutValues values(args.cut, rule);
  const device::OwnTokens tokens(values, blockIdx.x);
  device::wait_for_previous_kernel();
  if (!rule.asked) return;
  const DrawRow& row = args.cut.draws[blockIdx.y];
  const CutWorkspace& workspace = args.cut.workspace;
  RowCut& shared_cut = workspace.cuts[blockIdx.y];
  RowCut cut = shared_cut;
  if (cut.best.token_id == device::kNoToken) {
    if (blockIdx.x == 0 && threadIdx.x == 0) args.drawn[row.draw_row] = -1;
    return;
  }
  Candidate* list = workspace.list + static_cast<size_t>(blockIdx.y) * kCutListed;
  Noisy noisy{row.seed, row.position};
  tokens.for_each([&](float x, int token) {
    if (x < cut.least) return;
    const int bin = cut.first_bin < kCutBins ? device::bin_of(cut, x) : -1;
    if (bin < cut.first_bin) {
      noisy.offer(x, token);
    } else if (bin <= cut.last_bin) {
      const int place = atomicAdd(&shared_cut.listed, 1);
      if (place < kCutListed) list[place] = {x, token};
    }
  });
  const Candidate own = device::block_best(noisy.best, shared.best_of_warp);
  Candidate* of_chunk = workspace.of_chunk + static_cast<size_t>(blockIdx.y) * gridDim.x;
  if (threadIdx.x == 0) of_chunk[blockIdx.x] = own;
  if (!device::last_of_row(&workspace.arrivals[blockIdx.y])) return;

  cut.listed = __ldcg(&shared_cut.listed);
  noisy.best = device::no_candidate();
  for (unsigned chunk = threadIdx.x; chunk < gridDim.x; chunk += kCutThreads) {
    const float2 raw = __ldcg(reinterpret_cast<const float2*>(of_chunk) + chunk);
    const Candidate c = {raw.x, __float_as_int(raw.y)};
    noisy.take(c);
  }
  if constexpr (kShared) return end_shared_draw(args, rule, values, cut, list, shared, noisy);
  if (cut.listed <= kCutListed) {
    offer_listed(rule, cut, list, shared, noisy);
  } else {
    offer_slowly(rule, values, cut, shared, noisy, device::OwnSum{});
  }
  const Candidate winner = device::block_best(noisy.best, shared.best_of_warp);
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
