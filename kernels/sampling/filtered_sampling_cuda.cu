#include "kernels/base/cuda_check.h"
#include "kernels/sampling/sampling_cuda.h"
#include "kernels/sampling/vocab_select.cuh"

namespace lorikeet::kernels {
namespace {

// Probabilities relative to the best token's, in units of 2^-40: their sums are exact and independent of order.
__device__ __forceinline__ unsigned long long mass(float distance) {
  return __float2ull_rn(expf(-distance) * 0x1p40F);
}

// One block per row.
__global__ void __launch_bounds__(device::kSelectThreads) draw_filtered(FilteredDrawArgs args) {
  extern __shared__ __align__(16) unsigned char bytes[];
  auto& shared = *reinterpret_cast<device::SelectShared*>(bytes);
  __shared__ int32_t begins[kMaxVocabPieces + 1];
  if (threadIdx.x <= args.pieces) begins[threadIdx.x] = args.vocab_begins[threadIdx.x];
  __syncthreads();
  const DrawRow row = args.rows[blockIdx.x];
  if (row.draw_row < 0) return;
  const int vocab = begins[args.pieces];
  const bool by_count = row.top_k > 0 && row.top_k < vocab;
  const bool by_mass = row.top_p < 1;
  const device::VocabRow logits = {args.logits + (row.logits_row - args.first_logits_row) * args.stride,
                                   args.piece_stride, args.pieces, begins, row.temperature};
  device::Selection selection(logits, shared);
  const float best = selection.best().value;

  const auto passes_min_p = [&](float x) { return !(row.min_p > 0) || expf(x - best) >= row.min_p; };
  unsigned long long total = 0;  // what top_p is a share of, where top_k does not decide it
  if (row.min_p > 0) selection.limit_to_distance(-logf(row.min_p));
  if (by_count) {
    selection.limit_to_count(row.top_k);
  } else if (by_mass) {
    logits.for_each([&](float x, int) { total += passes_min_p(x) ? mass(best - x) : 0ULL; });
    total = device::block_sum(total, shared);
    // Tokens of less than (1 - top_p) / vocab each are less than 1 - top_p together: none of them can be kept.
    const float share = static_cast<float>(total) * 0x1p-40F * (1 - row.top_p) / static_cast<float>(vocab);
    if (share > 0x1p-38F) selection.limit_to_distance(-logf(share));
  }
  selection.gather();

  // The smallest key that stays: all three filters keep the best tokens.
  uint32_t lowest = 0;
  if (row.min_p > 0) {
    Candidate least = device::no_candidate();  // negated, so that the smallest is the best
    selection.for_each([&](float x, int id) {
      const Candidate c = {-x, id};
      if (passes_min_p(x) && device::better(c, least)) least = c;
    });
    least = device::block_best(least, shared);
    if (least.token_id != device::kNoToken) lowest = device::ordered_key(-least.value);
  }
  if (by_count) lowest = max(lowest, selection.key_of_rank(row.top_k));
  uint32_t last_tie = static_cast<uint32_t>(device::kNoToken);  // of the tokens with key `lowest`, ids up to this stay
  if (by_mass) {
    const auto mass_above = [&](uint32_t t) {
      return selection.sum([&](float x, int) {
        const uint32_t key = device::ordered_key(x);
        return key >= lowest && key > t ? mass(best - x) : 0ULL;
      });
    };
    if (by_count) {
      total = selection.sum([&](float x, int) { return device::ordered_key(x) >= lowest ? mass(best - x) : 0ULL; });
    }
    const double kept = static_cast<double>(row.top_p) * static_cast<double>(total);
    // A token stays while those better than it are less than top_p together.
    const uint32_t cut = selection.smallest(32, [&](uint32_t t) { return static_cast<double>(mass_above(t)) < kept; });
    if (cut >= lowest) {
      lowest = cut;
      const unsigned long long above = mass_above(cut);
      const unsigned long long ties =
          selection.sum([&](float x, int) { return device::ordered_key(x) == cut ? 1ULL : 0ULL; });
      if (ties > 1) {
        const unsigned long long tied_mass =
            selection.sum([&](float x, int) { return device::ordered_key(x) == cut ? mass(best - x) : 0ULL; });
        const double each = static_cast<double>(tied_mass) / static_cast<double>(ties);
        const double wanted = each > 0 ? ceil((kept - static_cast<double>(above)) / each) : 1;
        if (wanted < static_cast<double>(ties)) {
          last_tie = selection.last_of_ties(cut, wanted < 1 ? 1 : static_cast<unsigned long long>(wanted));
        }
      }
    }
  }

  Candidate winner = device::no_candidate();
  selection.for_each([&](float x, int id) {
    const uint32_t key = device::ordered_key(x);
    if (key < lowest || (key == lowest && static_cast<uint32_t>(id) > last_tie)) return;
    const Candidate c = {x + device::noise(row.seed, row.position, id), id};
    if (device::better(c, winner)) winner = c;
  });
  winner = device::block_best(winner, shared);
  if (threadIdx.x == 0) {
    args.drawn[row.draw_row] = winner.token_id == device::kNoToken ? selection.best().token_id : winner.token_id;
  }
}

}  // namespace

void draw_filtered_cuda(const FilteredDrawArgs& args, const Stream& stream) {
  CHECK_GE(args.pieces, 1);
  CHECK_LE(args.pieces, kMaxVocabPieces);
  if (args.num_rows == 0) return;
  constexpr int kSharedBytes = static_cast<int>(sizeof(device::SelectShared));
  LORIKEET_CHECK_CUDA(cudaFuncSetAttribute(draw_filtered, cudaFuncAttributeMaxDynamicSharedMemorySize, kSharedBytes));
  draw_filtered<<<args.num_rows, device::kSelectThreads, kSharedBytes, stream.handle()>>>(args);
  LORIKEET_CHECK_CUDA(cudaGetLastError());
}

}  // namespace lorikeet::kernels
