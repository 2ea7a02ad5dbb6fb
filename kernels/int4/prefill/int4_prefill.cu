// Weights are operand A of the warpgroups' matrix steps, scaled in registers: (q - z) * scale, rounded to the type of
// the activations. Tokens are the columns; their x comes by tensor copies. A block computes 128 outputs of kColumns
// tokens: one warp requests what two groups of four warps consume. Where there are few such blocks, the blocks of a
// cluster divide k; each of them adds the sums of some of the columns, in the order of k.
#include "kernels/int4/prefill/int4_prefill.h"

#include <type_traits>

#include "kernels/base/cuda_check.h"
#include "kernels/base/rounding.h"
#include "kernels/cuda/async_copy.cuh"
#include "kernels/cuda/device_math.cuh"
#include "kernels/cuda/element_dispatch.cuh"
#include "kernels/cuda/wgmma.cuh"
#include "kernels/int4/base/fragment.cuh"
#include "kernels/int4/base/launch.cuh"
#include "kernels/int4/base/layout.h"
#include "kernels/int4/base/output.cuh"
#include "kernels/int4/base/tensor_copies.cuh"
#include "kernels/int4/prefill/pair_scale.cuh"

namespace lorikeet::kernels {
namespace int4 {
namespace {

constexpr int kBlockTiles = 8;
constexpr int kGroupWarps = 4;
constexpr int kGroups = 2;  // that compute; a third requests
constexpr int kPrefillThreads = (kGroups + 1) * kGroupWarps * device::kWarpSize;
constexpr int kAlignment = 1024;
constexpr int kMostStages = 5;
constexpr int kMostCluster = 2;
constexpr int kMostDividedColumns = 128;  // of blocks in clusters

struct PrefillParams {
  const uint8_t* weight;
  OutputParams out;
  int32_t m, tiles, units, column_blocks;
  int32_t cluster;  // blocks that divide k, up to kMostCluster
};

template <class Format, int kColumns>
struct PrefillStage {
  static constexpr int kBox = kColumns * kBoxInputs * 2;
  static constexpr int kX = 2 * kBox;
  static constexpr int kWeights = kBlockTiles * Format::kBytes;
  static constexpr int kBytes = (kX + kWeights + kAlignment - 1) / kAlignment * kAlignment;
  static constexpr int kFit = ((227 << 10) - kAlignment - 256) / kBytes;
  static constexpr int kStages = kFit < kMostStages ? kFit : kMostStages;
  static constexpr int kSharedBytes = kStages * kBytes + kAlignment;
};

#if defined(__CUDA_ARCH_FEAT_SM90_ALL)
// The blocks of a cluster have sums of the two halves of k. Every second tile of 8 columns is a block's own: it gets the
// other's sums of it, in the ring that nobody needs any more, as [tile][thread], and adds them in the order of k.
template <int kColumns, int kRingBytes>
__device__ __forceinline__ void add_over_cluster(uint32_t ring, int rank, float (&sum)[kColumns / 2]) {
  constexpr int kConsumers = kGroups * kGroupWarps * device::kWarpSize;
  constexpr int kTiles = kColumns / 8;
  static_assert(kMostCluster == 2 && kTiles % 2 == 0 && kTiles / 2 * kConsumers * 16 <= kRingBytes);
  const uint32_t mine = ring + threadIdx.x * 16;
  const uint32_t others = device::cluster_address(mine, 1 - rank);
  device::cluster_arrive();
  device::cluster_wait();
#pragma unroll
  for (int c = 0; c < kTiles; c += 2) {
    const float4 low = make_float4(sum[4 * c], sum[4 * c + 1], sum[4 * c + 2], sum[4 * c + 3]);
    const float4 high = make_float4(sum[4 * c + 4], sum[4 * c + 5], sum[4 * c + 6], sum[4 * c + 7]);
    device::cluster_store_16(others + c / 2 * (kConsumers * 16), rank == 0 ? high : low);
  }
  device::cluster_arrive();
  device::cluster_wait();
#pragma unroll
  for (int c = 0; c < kTiles; c += 2) {
    const uint4 v = load_shared_16(mine + c / 2 * (kConsumers * 16));
    const float sent[4] = {__uint_as_float(v.x), __uint_as_float(v.y), __uint_as_float(v.z), __uint_as_float(v.w)};
    // Addition commutes: whose part comes first does not matter to two of them.
#pragma unroll
    for (int i = 0; i < 4; i++) {
      if (rank == 0) {
        sum[4 * c + i] += sent[i];
      } else {
        sum[4 * c + 4 + i] += sent[i];
      }
    }
  }
}
#endif

// Products of more tokens than kInt4DecodeRows.
//   grid     tiles of 128 outputs * blocks of kColumns tokens * cluster (1 or 2), 384 threads: one group of four warps requests,
//            two compute; 168 registers at launch, redistributed; one CTA a multiprocessor
//   shared   PrefillStage::kSharedBytes: up to five stages of weights and x
//   device   9.0a (wgmma, tensor copies); other devices unpack for cuBLASLt
//   waits    for the kernel in front
//   floor    0.68 to 1.27 times as fast as cuBLASLt fp16 from 80 to 4,096 tokens; 78 % of a whole prompt's floor
template <class T, class Format, int kColumns>
__global__ void __launch_bounds__(kPrefillThreads, 1)
    prefill(const __grid_constant__ PrefillParams p, const __grid_constant__ CUtensorMap x_map) {
#if defined(__CUDA_ARCH_FEAT_SM90_ALL)
  using Stage = PrefillStage<Format, kColumns>;
  constexpr int kStages = Stage::kStages;
  extern __shared__ unsigned char shared_bytes[];
  __shared__ __align__(8) uint64_t barriers[2 * kMostStages];  // its presence tells that the kernel was compiled
  const uint32_t unaligned = device::shared_address(shared_bytes);
  const uint32_t base = (unaligned + kAlignment - 1) / kAlignment * kAlignment;
  const uint32_t full = device::shared_address(barriers);
  const uint32_t empty = full + kMostStages * 8;
  const int warp = threadIdx.x / device::kWarpSize;
  const int lane = threadIdx.x % device::kWarpSize;
  const int group = warp / kGroupWarps;
  const int rank = static_cast<int>(blockIdx.x) % p.cluster;
  const int block = static_cast<int>(blockIdx.x) / p.cluster;
  const int first_tile = block / p.column_blocks * kBlockTiles;
  const int first_token = block % p.column_blocks * kColumns;
  const int first_unit = p.units * rank / p.cluster;
  const int units = p.units * (rank + 1) / p.cluster - first_unit;
  if (threadIdx.x == 0) {
    for (int i = 0; i < kStages; i++) {
      device::barrier_init(full + i * 8, 1);
      device::barrier_init(empty + i * 8, kGroups * kGroupWarps * device::kWarpSize);
    }
    device::fence_barrier_init();
  }
  __syncthreads();
  device::allow_next_kernel();

  if (group == kGroups) {
    device::give_registers<40>();
    if (warp != kGroups * kGroupWarps || lane != 0) return;
    device::wait_for_previous_kernel();
    const uint64_t policy = device::evict_first_policy();
    for (int unit = 0; unit < units; unit++) {
      const int stage = unit % kStages;
      const int use = unit / kStages;
      if (use > 0) device::barrier_wait(empty + stage * 8, (use - 1) & 1);
      const uint32_t x = base + stage * Stage::kBytes;
      const uint32_t barrier = full + stage * 8;
      device::barrier_expect(barrier, Stage::kX + Stage::kWeights);
      for (int tile = 0; tile < kBlockTiles; tile++) {
        // Behind the last tile the last is repeated; its results are not used.
        const int64_t from = static_cast<int64_t>(min(first_tile + tile, p.tiles - 1)) * p.units + first_unit + unit;
        if (p.column_blocks > 1) {  // other blocks read it too
          asm volatile("cp.async.bulk.shared::cluster.global.mbarrier::complete_tx::bytes [%0], [%1], %2, [%3];" ::"r"(
                           x + Stage::kX + tile * Format::kBytes),
                       "l"(p.weight + from * Format::kBytes), "r"(Format::kBytes), "r"(barrier)
                       : "memory");
        } else {
          device::bulk_copy(x + Stage::kX + tile * Format::kBytes, p.weight + from * Format::kBytes, Format::kBytes,
                            barrier, policy);
        }
      }
      tensor_copy(x, &x_map, (first_unit + unit) * kUnitInputs, first_token, barrier);
      tensor_copy(x + Stage::kBox, &x_map, (first_unit + unit) * kUnitInputs + kBoxInputs, first_token, barrier);
    }
    return;
  }

  device::take_registers<232>();
  const int g = lane / 4;
  float sum[kColumns / 2];
  for (int unit = 0; unit < units; unit++) {
    const int stage = unit % kStages;
    device::barrier_wait(full + stage * 8, unit / kStages & 1);
    const uint32_t x = base + stage * Stage::kBytes;
    const uint32_t weights = x + Stage::kX + warp * Format::kBytes;
    const unsigned char* unit_bytes_at = shared_bytes + (weights - unaligned);
    uint4 words[2];
    words[0] = load_shared_16(weights + lane * 16);
    words[1] = load_shared_16(weights + 512 + lane * 16);
#pragma unroll
    for (int j = 0; j < kUnitInputs / kSubBlock; j++) {
      const int scale = j * kSubBlock / Format::kScaleBlock;
      const PairScale<T> scales(reinterpret_cast<const uint32_t*>(unit_bytes_at + kNibbleBytes)[scale * 8 + g]);
      uint32_t a[2][4];
      decode_sub_block<T>(j % 2 == 0 ? words[j / 2].x : words[j / 2].z, j % 2 == 0 ? words[j / 2].y : words[j / 2].w,
                          load_zeros<T, Format>(unit_bytes_at, scale, g), a);
#pragma unroll
      for (int s = 0; s < 2; s++) {
#pragma unroll
        for (int i = 0; i < 4; i++) a[s][i] = scales.apply(a[s][i], i % 2);
      }
      device::warpgroup_fence();
#pragma unroll
      for (int s = 0; s < 2; s++) {
        const uint64_t b = device::swizzled_operand(x + j / 2 * Stage::kBox + (j % 2 * 2 + s) * 32);
        device::multiply_async<T>(sum, a[s], b, unit + j + s > 0);
      }
      device::warpgroup_commit();
      device::warpgroup_wait<1>();
      // The steps of the unit before have ended: their stage may be filled again.
      if (j == 0) device::barrier_arrive_if(empty + (unit + kStages - 1) % kStages * 8, unit > 0);
    }
  }
  device::warpgroup_wait<0>();
#pragma unroll
  for (int i = 0; i < kColumns / 2; i++) asm volatile("" : "+f"(sum[i])::"memory");  // not to be read before
  if constexpr (kColumns <= kMostDividedColumns) {
    if (p.cluster > 1) add_over_cluster<kColumns, kStages * Stage::kBytes>(base, rank, sum);
  }
  device::wait_for_previous_kernel();  // its readers of y, for the warps that have requested nothing
  const int tile = first_tile + warp;
  if (tile >= p.tiles) return;
#pragma unroll
  for (int c = 0; c < kColumns / 8; c++) {
    if (first_token + c * 8 >= p.m) break;
    if (kColumns <= kMostDividedColumns && p.cluster > 1 && c % kMostCluster != rank) continue;
    const float values[4] = {sum[c * 4], sum[c * 4 + 1], sum[c * 4 + 2], sum[c * 4 + 3]};
    store_columns<T>(p.out, p.m, tile, first_token + c * 8, values, lane);
  }
#endif
}

using PrefillKernel = void (*)(PrefillParams, CUtensorMap);
struct PrefillVariant {
  PrefillKernel kernel;
  int shared_bytes;
};

template <class T, int kColumns>
PrefillVariant prefill_variant(int32_t scale_block, bool asymmetric) {
  return with_format(scale_block, asymmetric, [](auto format) -> PrefillVariant {
    using Format = decltype(format);
    return {prefill<T, Format, kColumns>, PrefillStage<Format, kColumns>::kSharedBytes};
  });
}

}  // namespace
}  // namespace int4

bool int4_prefill_available() {
  cudaFuncAttributes attributes{};
  LORIKEET_CHECK_CUDA(
      cudaFuncGetAttributes(&attributes, int4::prefill_variant<__half, 256>(int4::kUnitInputs, false).kernel));
  return attributes.sharedSizeBytes > 0;
}

namespace {

int32_t blocks_of(const PackedInt4Weight& weight, int32_t m, const Int4PrefillShape& shape) {
  return divide_up(weight.tiles, int4::kBlockTiles) * divide_up(m, shape.columns) * shape.cluster;
}

// Microseconds on an H200: of a unit of k in a block, and of a block besides (its beginning and end).
struct BlockCost {
  double unit, block;
};
BlockCost cost_of(int32_t columns) {
  switch (columns) {
    case 96:
      return {0.67, 6.2};
    case 128:
      return {0.72, 8.2};
    case 192:
      return {0.90, 10};
    default:
      return {1.14, 12};
  }
}
constexpr double kExchangeCost = 5;  // of sums between the blocks of a cluster

}  // namespace

std::span<const Int4PrefillShape> int4_prefill_shapes() {
  static constexpr Int4PrefillShape kShapes[] = {{256, 1}, {192, 1}, {128, 1}, {96, 1}, {128, 2}, {96, 2}};
  return kShapes;
}

bool int4_prefill_fits(const PackedInt4Weight& weight, const Int4PrefillShape& shape) {
  return shape.cluster == 1 || weight.units >= 4 * shape.cluster;
}

Int4PrefillShape shape_int4_prefill(const PackedInt4Weight& weight, int32_t m, int32_t multiprocessors) {
  Int4PrefillShape chosen;
  double least = 0;
  for (const Int4PrefillShape& shape : int4_prefill_shapes()) {
    if (!int4_prefill_fits(weight, shape)) continue;
    const BlockCost costs = cost_of(shape.columns);
    const double cost =
        divide_up(blocks_of(weight, m, shape), multiprocessors) *
        (costs.unit * divide_up(weight.units, shape.cluster) + costs.block + (shape.cluster > 1 ? kExchangeCost : 0));
    if (least > 0 && cost >= least) continue;
    chosen = shape;
    least = cost;
  }
  return chosen;
}

void int4_prefill(const PackedInt4Weight& weight, const Int4GemmArgs& args, const Int4PrefillShape& shape,
                  const Stream& stream) {
  int4::PrefillParams p{};
  p.weight = weight.data.as<uint8_t>();
  p.out = int4::output_params(weight, args);
  p.m = args.m;
  p.tiles = weight.tiles;
  p.units = weight.units;
  p.column_blocks = divide_up(args.m, shape.columns);
  p.cluster = shape.cluster;
  const CUtensorMap map = int4::map_of_x(args, weight.k, shape.columns);
  with_activation_type(args.dtype, [&](auto element) {
    using T = typename decltype(element)::type;
    p.out.factor *= int4::PairScale<T>::kFactor;
    const auto variant_of = [&](auto columns) {
      return int4::prefill_variant<T, decltype(columns)::value>(weight.scale_block, weight.asymmetric);
    };
    const int4::PrefillVariant variant = shape.columns == 96    ? variant_of(std::integral_constant<int, 96>{})
                                         : shape.columns == 128 ? variant_of(std::integral_constant<int, 128>{})
                                         : shape.columns == 192 ? variant_of(std::integral_constant<int, 192>{})
                                                                : variant_of(std::integral_constant<int, 256>{});
    LORIKEET_CHECK_CUDA(
        cudaFuncSetAttribute(variant.kernel, cudaFuncAttributeMaxDynamicSharedMemorySize, variant.shared_bytes));
    device::LaunchShape launch;
    launch.blocks = static_cast<unsigned>(blocks_of(weight, args.m, shape));
    launch.cluster = static_cast<unsigned>(p.cluster);
    launch.threads = int4::kPrefillThreads;
    launch.shared_bytes = static_cast<size_t>(variant.shared_bytes);
    launch.overlap = true;
    device::launch(variant.kernel, launch, stream.handle(), p, map);
  });
}

}  // namespace lorikeet::kernels
