#include "kernels/int4/decode/lora_parts.h"

#include <algorithm>

#include "kernels/base/cuda_check.h"
#include "kernels/cuda/element_dispatch.cuh"
#include "kernels/cuda/overlap_launch.cuh"
#include "kernels/lora/lora_shrink.cuh"

namespace lorikeet::kernels::int4 {
namespace {

constexpr int kWarps = lora::kShrinkWarps;
constexpr int kThreads = kWarps * device::kWarpSize;
constexpr int kRanks = lora::kRankTile;
static_assert(kMostFusedInputs <= kMostParts * lora::kPartBlocks * lora::kInputBlock);
constexpr int kMostCtas = 2;  // of a multiprocessor, where ranks are high

struct LoraPartsParams {
  const DeviceLora* entries;  // of the first projection
  int32_t slot_stride;
  const LoraCounts* counts;
  const LoraTile* units;
  const int32_t* order;
  const void* x;
  int64_t x_stride;
  float* parts;
  int32_t m, inputs, projections, part_count, rank_stride;
  uint32_t x_blocks;
  const uint32_t* x_done;  // or null
};

// Parts of A x: eight ranks of an adapter and kPartBlocks of the inputs each, for all of its tokens. Every warp sums a
// slice of the inputs, and the slices are added in their order, as in kernels/lora/lora_shrink.cuh. All of A is on its
// way before x is there.
//   grid     most units * projections * parts, up to two CTAs a multiprocessor; 256 threads, 64 registers
//   shared   2 kB: so little, and so few registers, that it finds room beside a product
//   device   8.0
//   waits    for x's writer by its counter (done_counter.cuh), in the end for the kernel in front
template <class T>
__global__ void __launch_bounds__(kThreads, 4) lora_parts(const __grid_constant__ LoraPartsParams p) {
  __shared__ float slices[kWarps][kMostFusedTokens][kRanks];
  device::allow_next_kernel();
  const int warp = static_cast<int>(threadIdx.x) / device::kWarpSize;
  const int lane = static_cast<int>(threadIdx.x) % device::kWarpSize;
  const int g = lane / 4;
  const int t = lane % 4;
  const int blocks = lora::input_blocks(p.inputs);
  const int per_unit = p.projections * p.part_count;
  // The first unit beside their number.
  int item = static_cast<int>(blockIdx.x);
  LoraTile unit = p.units[item / per_unit];
  const int items = p.counts->units * per_unit;
  if (item >= items && blockIdx.x > 0) return;  // room for the next kernel; the first one waits for all
  bool waits = true;
  for (; item < items; item += static_cast<int>(gridDim.x)) {
    if (item != static_cast<int>(blockIdx.x)) unit = p.units[item / per_unit];
    const int in_unit = item % per_unit;
    const int projection = in_unit / p.part_count;
    const int part = in_unit - projection * p.part_count;
    const DeviceLora* entry = p.entries + static_cast<int64_t>(unit.slot) * p.slot_stride + projection;
    const auto* from = static_cast<const uint4*>(entry->a);
    const int token = g < unit.count ? p.order[unit.first + g] : -1;
    if (unit.first_rank >= entry->rank) continue;  // alike for all threads
    const int first = part * lora::kPartBlocks + warp * lora::kSliceBlocks;
    const int steps = blocks - first;
    from += (static_cast<int64_t>(unit.first_rank / kRanks) * blocks + first) * device::kWarpSize + lane;
    uint4 a[lora::kSliceBlocks];
#pragma unroll
    for (int i = 0; i < lora::kSliceBlocks; i++) {
      a[i] = i < steps ? __ldg(from + i * device::kWarpSize) : make_uint4(0, 0, 0, 0);
    }
    if (waits && p.x_done != nullptr) {
      device::wait_until_counted(p.x_done, p.x_blocks);
    } else if (waits) {
      device::wait_for_previous_kernel();
    }
    waits = false;
    const T* x = static_cast<const T*>(p.x) + max(token, 0) * p.x_stride;
    float sums[4] = {};
    constexpr int kRows = 4;  // of x, on their way: no more registers than a product's
#pragma unroll
    for (int begin = 0; begin < lora::kSliceBlocks; begin += kRows) {
      uint4 row[kRows];
#pragma unroll
      for (int i = 0; i < kRows; i++) {
        const int input = (first + begin + i) * lora::kInputBlock + t * 8;
        row[i] =
            token >= 0 && input < p.inputs ? __ldcg(reinterpret_cast<const uint4*>(x + input)) : make_uint4(0, 0, 0, 0);
      }
#pragma unroll
      for (int i = 0; i < kRows; i++) {
        if (begin + i >= steps) break;
        lora::add_input_block<T>(sums, row[i], make_uint4(0, 0, 0, 0), a[begin + i]);
      }
    }
    __syncthreads();  // the slices of the item before have been read
    *reinterpret_cast<float2*>(&slices[warp][g][2 * t]) = make_float2(sums[0], sums[1]);
    __syncthreads();
    const int of_unit = static_cast<int>(threadIdx.x) / kRanks;
    const int rank = static_cast<int>(threadIdx.x) % kRanks;
    const int of_row = __shfl_sync(device::kFullWarp, token, of_unit % kMostFusedTokens * 4);
    if (of_unit < min(unit.count, kMostFusedTokens)) {
      float sum = 0;
#pragma unroll
      for (int w = 0; w < kWarps; w++) sum += slices[w][of_unit][rank];
      const int64_t place = (part * p.m + of_row) * p.projections + projection;
      p.parts[place * p.rank_stride + unit.first_rank + rank] = sum;
    }
  }
  device::wait_for_previous_kernel();  // what follows may rely on all that came before
}

}  // namespace

void make_lora_parts(const Int4GemmArgs& args, const Stream& stream) {
  const Int4Lora& lora = *args.lora;
  CHECK_EQ(lora.rows.rows, args.m);
  CHECK_LE(args.m, kMostFusedTokens);
  LoraPartsParams p{};
  p.entries = lora.table.entries + lora.linear.first_entry;
  p.slot_stride = lora.table.slot_stride;
  p.counts = lora.rows.counts;
  p.units = lora.rows.units;
  p.order = lora.rows.order;
  p.x = args.x;
  p.x_stride = args.x_stride;
  p.parts = lora.turn.parts;
  p.m = args.m;
  p.inputs = lora.linear.inputs;
  p.projections = lora.linear.projections;
  p.part_count = lora::input_parts(p.inputs);
  CHECK_LE(p.part_count, kMostParts);
  p.rank_stride = lora::padded_rank(lora.rows.max_rank);
  p.x_done = lora.x_done;
  p.x_blocks = static_cast<uint32_t>(lora.x_blocks);
  // Each token has an adapter of its own at the most.
  const int32_t units = std::min(lora.rows.most_units, args.m * lora::rank_tiles(lora.rows.max_rank));
  const int32_t most = kMostCtas * device_properties().multiprocessors;
  const auto grid = static_cast<unsigned>(std::min(units * p.projections * p.part_count, most));
  with_activation_type(args.dtype, [&](auto element) {
    using T = typename decltype(element)::type;
    device::launch_overlapped(lora_parts<T>, dim3(grid), kThreads, 0, stream.handle(), p);
  });
}

}  // namespace lorikeet::kernels::int4
