#include "kernels/int4/stream/int4_stream.h"

#include <algorithm>

#include "kernels/base/cuda_check.h"
#include "kernels/base/rounding.h"
#include "kernels/cuda/element_dispatch.cuh"
#include "kernels/int4/base/launch.cuh"
#include "kernels/int4/stream/kernels.cuh"

namespace lorikeet::kernels {
namespace {

using int4::kPartsOfK;

constexpr int32_t kFewestStages = 2;
constexpr int32_t kEnoughStages = 3;  // fewer do not hide the memory's latency: rather fewer tiles at a time

// What differs between the kernels of warps and of warpgroups.
struct Kind {
  const void* kernel = nullptr;
  int32_t threads = 0;
  int32_t columns = 0;
  uint64_t x_bytes = 0;  // of a stage
  uint64_t alignment = 0;
  bool groups = false;
};

int4::StreamKernel stream_kernel(const PackedInt4Weight& weight, int32_t m, Dtype dtype) {
  int4::StreamKernel kernel = nullptr;
  with_activation_type(dtype, [&](auto element) {
    using T = typename decltype(element)::type;
    kernel = int4::stream_kernel<T>(m, weight.scale_block, weight.asymmetric);
  });
  return kernel;
}

int4::GroupStreamKernel group_stream_kernel(const PackedInt4Weight& weight, int32_t m, Dtype dtype) {
  int4::GroupStreamKernel kernel = nullptr;
  with_activation_type(dtype, [&](auto element) {
    using T = typename decltype(element)::type;
    kernel = int4::group_stream_kernel<T>(m, weight.scale_block, weight.asymmetric);
  });
  return kernel;
}

Kind kind_of(const PackedInt4Weight& weight, int32_t m, Dtype dtype, bool groups) {
  Kind kind;
  kind.groups = groups;
  kind.columns = groups ? int4::group_stream_columns(m) : int4::stream_columns(m);
  if (groups) {
    kind.kernel = reinterpret_cast<const void*>(group_stream_kernel(weight, m, dtype));
    kind.threads = int4::kGroupStreamThreads;
    kind.x_bytes = static_cast<uint64_t>(int4::group_stream_x_bytes(kind.columns));
    kind.alignment = int4::kBoxAlignment;
  } else {
    kind.kernel = reinterpret_cast<const void*>(stream_kernel(weight, m, dtype));
    kind.threads = int4::kStreamThreads;
    kind.x_bytes = static_cast<uint64_t>(kind.columns * int4::kStreamRowBytes);
    kind.alignment = 128;
  }
  return kind;
}

// Shared memory of a block.
struct StreamSizes {
  static constexpr uint64_t kBarriers = 128;
  static_assert(kBarriers >= 2 * int4::kMostStages * sizeof(uint64_t));

  uint64_t stage_x_offset = 0;
  uint64_t stage = 0;
  uint64_t sums = 0;
  uint64_t slack = 0;  // to align the first stage

  StreamSizes(const PackedInt4Weight& weight, const Kind& kind, int32_t cluster, int32_t round_tiles) {
    stage_x_offset = round_up(static_cast<uint64_t>(round_tiles * weight.unit_bytes()), kind.alignment);
    stage = round_up(stage_x_offset + kind.x_bytes, kind.alignment);
    const int32_t tiles = cluster == 1 ? round_tiles : round_up(round_tiles, kPartsOfK);
    sums = static_cast<uint64_t>(tiles * (kind.columns / 8) * int4::kFragmentBytes);
    slack = kind.groups ? kind.alignment : 0;
  }
  uint64_t total(int32_t stages) const { return static_cast<uint64_t>(stages) * stage + sums + kBarriers + slack; }
};

// The most stages that fit; 0 where not even kFewestStages do.
int32_t stages_for(const StreamSizes& sizes, uint64_t limit) {
  int32_t stages = int4::kMostStages;
  while (stages >= kFewestStages && sizes.total(stages) > limit) stages--;
  return stages >= kFewestStages ? stages : 0;
}

Int4DecodeShape streaming_shape(const PackedInt4Weight& weight, const Kind& kind, const Int4DecodeDevice& device,
                                int32_t cluster, int32_t groups) {
  Int4DecodeShape shape;
  shape.streams_x = true;
  shape.groups = kind.groups;
  shape.cluster = cluster;
  // The blocks of a cluster work on one round.
  const int32_t fewest = cluster == 1 ? 1 : divide_up(weight.tiles, int4::kRoundTiles);
  const int32_t used_groups = std::min(std::max(groups, fewest), weight.tiles);
  shape.blocks = used_groups * cluster;
  const int32_t tiles = divide_up(weight.tiles, used_groups);
  const int32_t rounds = divide_up(tiles, int4::kRoundTiles);
  shape.round_tiles = divide_up(tiles, rounds);
  const auto depth = [&] {
    return stages_for(StreamSizes(weight, kind, cluster, shape.round_tiles), device.shared_bytes_per_block);
  };
  shape.depth = depth();
  while (cluster == 1 && shape.depth < kEnoughStages && shape.round_tiles > kPartsOfK) {
    shape.round_tiles--;
    shape.depth = depth();
  }
  CHECK_GE(shape.depth, kFewestStages) << weight.n << "x" << weight.k << " with " << kind.columns
                                       << " columns does not fit shared memory";
  return shape;
}

// What the walks of blocks cost, in tiles times units, when `groups` of them find room at once.
int64_t streaming_cost(const PackedInt4Weight& weight, const Int4DecodeShape& shape, int32_t groups) {
  constexpr int32_t kStep = 3;       // of a round's step, beside its tiles
  constexpr int32_t kExchange = 40;  // of the sums between blocks
  const int32_t used_groups = shape.blocks / shape.cluster;
  const int32_t tiles = divide_up(weight.tiles, used_groups);
  const int64_t walk = static_cast<int64_t>(tiles + kStep * divide_up(tiles, shape.round_tiles)) *
                       divide_up(weight.units, shape.cluster);
  return (walk + (shape.cluster > 1 ? kExchange : 0)) * divide_up(used_groups, groups);
}

}  // namespace

bool int4_group_stream_available() {
  cudaFuncAttributes attributes{};
  LORIKEET_CHECK_CUDA(
      cudaFuncGetAttributes(&attributes, int4::group_stream_kernel<__half>(1, int4::kUnitInputs, false)));
  return attributes.sharedSizeBytes > 0;
}

int32_t int4_stream_clusters(const Int4DecodeDevice& device) {
  const PackedInt4Weight usual = {};
  const Kind kind = kind_of(usual, 1, Dtype::f16, device.groups);
  const uint64_t bytes = device.shared_bytes_per_block - StreamSizes::kBarriers;
  int4::allow_shared_memory(kind.kernel, bytes);
  return int4::clusters_at_once(kind.kernel, kPartsOfK, kind.threads, device.multiprocessors, bytes);
}

bool int4_stream_fits(const Int4DecodeWish& wish, const Int4DecodeDevice& device) {
  if (wish.cluster > 1 && !device.clusters) return false;
  if (wish.steps == Int4DecodeWish::Steps::of_groups && !device.groups) return false;
  return wish.depth <= int4::kMostStages;
}

Int4DecodeShape shape_int4_stream(const PackedInt4Weight& weight, int32_t m, Dtype dtype, const Int4DecodeWish& wish,
                                  const Int4DecodeDevice& device) {
  using Steps = Int4DecodeWish::Steps;
  const bool of_groups = wish.steps == Steps::any ? device.groups : wish.steps == Steps::of_groups;
  const Kind kind = kind_of(weight, m, dtype, of_groups);
  Int4DecodeShape shape = streaming_shape(weight, kind, device, 1, device.multiprocessors);
  if (device.clusters && device.quads > 0 && wish.cluster != 1) {
    const Int4DecodeShape divided = streaming_shape(weight, kind, device, kPartsOfK, device.quads);
    if (wish.cluster > 1 ||
        streaming_cost(weight, divided, device.quads) < streaming_cost(weight, shape, device.multiprocessors)) {
      shape = divided;
    }
  }
  // Warpgroups read a unit ahead; with more columns the larger stages take longer to fill than one more of them hides.
  const int32_t enough = of_groups && kind.columns <= 32 ? kEnoughStages + 1 : kEnoughStages;
  shape.depth = std::min(wish.depth > 0 ? wish.depth : enough, shape.depth);
  shape.bytes = StreamSizes(weight, kind, shape.cluster, shape.round_tiles).total(shape.depth);
  return shape;
}

void int4_stream(const PackedInt4Weight& weight, const Int4GemmArgs& args, const Int4DecodeShape& shape,
                 const Stream& stream) {
  const Kind kind = kind_of(weight, args.m, args.dtype, shape.groups);
  const StreamSizes sizes(weight, kind, shape.cluster, shape.round_tiles);
  auto p = int4::common_params<int4::StreamParams>(weight, args);
  p.cluster = shape.cluster;
  p.stages = shape.depth;
  p.round_tiles = shape.round_tiles;
  p.stage_bytes = static_cast<int32_t>(sizes.stage);
  p.stage_x_offset = static_cast<int32_t>(sizes.stage_x_offset);
  p.sums_offset = static_cast<int32_t>(static_cast<uint64_t>(shape.depth) * sizes.stage);
  p.barriers_offset = static_cast<int32_t>(static_cast<uint64_t>(p.sums_offset) + sizes.sums);
  device::LaunchShape launch;
  launch.blocks = static_cast<unsigned>(shape.blocks);
  launch.overlap = shape.overlap;
  launch.threads = static_cast<unsigned>(kind.threads);
  launch.shared_bytes = sizes.total(shape.depth) - (kind.groups ? StreamSizes::kBarriers : 0);
  launch.cluster = static_cast<unsigned>(shape.cluster);
  int4::allow_shared_memory(kind.kernel, launch.shared_bytes);
  if (kind.groups) {
    const int4::GroupStreamMaps maps = {int4::map_of_x(args, weight.k, kind.columns),
                                        int4::map_of_weight(weight, shape.round_tiles),
                                        int4::map_of_weight(weight, std::max(shape.round_tiles - 1, 1))};
    device::launch(group_stream_kernel(weight, args.m, args.dtype), launch, stream.handle(), p, maps);
  } else {
    device::launch(stream_kernel(weight, args.m, args.dtype), launch, stream.handle(), p);
  }
}

}  // namespace lorikeet::kernels
