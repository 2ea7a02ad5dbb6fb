// Weights are operand A of the warpgroups' matrix steps, scaled in registers: (q - z) * scale, rounded to the type of
// the activations. Tokens are the columns; their x comes by tensor copies. A block computes 128 outputs of kColumns
// tokens: one warp requests what two groups of four warps consume. Where there are few such blocks, the blocks of a
// cluster divide k, and the first of them adds their sums in the order of k.
#include "kernels/int4/prefill/int4_prefill.h"

#include <type_traits>

#include "kernels/base/cuda_check.h"
#include "kernels/cuda/async_copy.cuh"
#include "kernels/cuda/device_math.cuh"
#include "kernels/cuda/element_dispatch.cuh"
#include "kernels/cuda/wgmma.cuh"
#include "kernels/int4/base/fragment.cuh"
#include "kernels/int4/base/launch.cuh"
#include "kernels/int4/base/layout.h"
#include "kernels/int4/base/output.cuh"
#include "kernels/int4/base/tensor_copies.cuh"

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

// Scales of rows g and g + 8, ready to multiply pairs. fp16: stored scales reach 2^15, so that they are lowered by 2^8,
// which finish_factor undoes.
template <class T>
struct PairScale;
template <>
struct PairScale<__half> {
  static constexpr float kFactor = 256;
  __half2 s[2];
  __device__ __forceinline__ explicit PairScale(uint32_t pair) {
    const __half2 both = __hmul2(*reinterpret_cast<const __half2*>(&pair), __float2half2_rn(1 / kFactor));
    s[0] = __low2half2(both);
    s[1] = __high2half2(both);
  }
  __device__ __forceinline__ uint32_t apply(uint32_t q, int half) const {
    const __half2 r = __hmul2(*reinterpret_cast<const __half2*>(&q), s[half]);
    return *reinterpret_cast<const uint32_t*>(&r);
  }
};
template <>
struct PairScale<__nv_bfloat16> {
  static constexpr float kFactor = 1;
  float2 s;
  __device__ __forceinline__ explicit PairScale(uint32_t pair) : s(scales_of(pair)) {}
  __device__ __forceinline__ uint32_t apply(uint32_t q, int half) const {
    const float2 v = device::unpack<__nv_bfloat16>(q);
    const float by = half == 0 ? s.x : s.y;
    return device::pack<__nv_bfloat16>(v.x * by, v.y * by);
  }
};

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
  if (p.cluster > 1) {
    // Into the ring of the first block, once all its warps have done with it: [4 columns][thread].
    constexpr int kConsumers = kGroups * kGroupWarps * device::kWarpSize;
    static_assert(kColumns / 8 * kConsumers * 16 <= kStages * Stage::kBytes);
    const uint32_t mine = base + threadIdx.x * 16;
    device::cluster_arrive();
    device::cluster_wait();
    if (rank > 0) {
      const uint32_t first_block = device::cluster_address(mine, 0);
#pragma unroll
      for (int c = 0; c < kColumns / 8; c++) {
        device::cluster_store_16(first_block + c * (kConsumers * 16),
                                 make_float4(sum[4 * c], sum[4 * c + 1], sum[4 * c + 2], sum[4 * c + 3]));
      }
    }
    device::cluster_arrive();
    device::cluster_wait();
    if (rank > 0) return;
#pragma unroll
    for (int c = 0; c < kColumns / 8; c++) {
      const uint4 v = load_shared_16(mine + c * (kConsumers * 16));
      sum[4 * c] += __uint_as_float(v.x);
      sum[4 * c + 1] += __uint_as_float(v.y);
      sum[4 * c + 2] += __uint_as_float(v.z);
      sum[4 * c + 3] += __uint_as_float(v.w);
    }
  }
  device::wait_for_previous_kernel();  // its readers of y, for the warps that have requested nothing
  const int tile = first_tile + warp;
  if (tile >= p.tiles) return;
#pragma unroll
  for (int c = 0; c < kColumns / 8; c++) {
    if (first_token + c * 8 >= p.m) break;
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

void int4_prefill(const PackedInt4Weight& weight, const Int4GemmArgs& args, const Stream& stream) {
  const auto divide_up = [](int32_t a, int32_t b) { return (a + b - 1) / b; };
  const int32_t output_blocks = divide_up(weight.tiles, int4::kBlockTiles);
  static const int32_t multiprocessors = device_properties().multiprocessors;
  // The shape that should take the least time by costs as they were seen on an H200: the larger blocks read less,
  // others may leave fewer processors idle.
  struct Shape {
    int32_t columns, cluster;
    double unit_cost;  // of a block, relative to one of 256 tokens
  };
  constexpr Shape kShapes[] = {{256, 1, 1.0}, {192, 1, 0.74}, {128, 1, 0.52}, {128, int4::kMostCluster, 0.52}};
  constexpr double kBlockCost = 4;    // units of 256 tokens that beginning and end of a block take
  constexpr double kClusterCost = 4;  // and the exchange of sums
  const Shape* chosen = nullptr;
  double least = 0;
  for (const Shape& shape : kShapes) {
    if (weight.units < 8 * shape.cluster && shape.cluster > 1) continue;
    const int32_t blocks = output_blocks * divide_up(args.m, shape.columns) * shape.cluster;
    const double cost = divide_up(blocks, multiprocessors) * (shape.unit_cost * divide_up(weight.units, shape.cluster) +
                                                              kBlockCost + (shape.cluster > 1 ? kClusterCost : 0));
    if (chosen != nullptr && cost >= least) continue;
    chosen = &shape;
    least = cost;
  }

  int4::PrefillParams p{};
  p.weight = weight.data.as<uint8_t>();
  p.out = int4::output_params(weight, args);
  p.m = args.m;
  p.tiles = weight.tiles;
  p.units = weight.units;
  p.column_blocks = divide_up(args.m, chosen->columns);
  p.cluster = chosen->cluster;
  const CUtensorMap map = int4::map_of_x(args, weight.k, chosen->columns);
  with_activation_type(args.dtype, [&](auto element) {
    using T = typename decltype(element)::type;
    p.out.factor *= int4::PairScale<T>::kFactor;
    const auto variant_of = [&](auto columns) {
      return int4::prefill_variant<T, decltype(columns)::value>(weight.scale_block, weight.asymmetric);
    };
    const int4::PrefillVariant variant = chosen->columns == 128   ? variant_of(std::integral_constant<int, 128>{})
                                         : chosen->columns == 192 ? variant_of(std::integral_constant<int, 192>{})
                                                                  : variant_of(std::integral_constant<int, 256>{});
    LORIKEET_CHECK_CUDA(
        cudaFuncSetAttribute(variant.kernel, cudaFuncAttributeMaxDynamicSharedMemorySize, variant.shared_bytes));
    device::LaunchShape launch;
    launch.blocks = static_cast<unsigned>(output_blocks * p.column_blocks * p.cluster);
    launch.cluster = static_cast<unsigned>(p.cluster);
    launch.threads = int4::kPrefillThreads;
    launch.shared_bytes = static_cast<size_t>(variant.shared_bytes);
    launch.overlap = true;
    device::launch(variant.kernel, launch, stream.handle(), p, map);
  });
}

}  // namespace lorikeet::kernels
