#include "kernels/int4_stream.h"

#include <algorithm>

#include "kernels/cuda_check.h"
#include "kernels/element_dispatch.cuh"
#include "kernels/int4_launch.cuh"
#include "kernels/int4_stream_kernels.cuh"

namespace lorikeet::kernels {
namespace {

using int4::kPartsOfK;

constexpr int32_t kFewestStages = 2;
constexpr int32_t kEnoughStages = 3;  // fewer do not hide the memory's latency: rather fewer tiles at a time

int32_t divide_up(int32_t a, int32_t b) {
  return (a + b - 1) / b;
}
uint64_t align_up(uint64_t bytes) {
  return (bytes + 127) / 128 * 128;
}

// Shared memory of a block for which x streams.
struct StreamSizes {
  static constexpr uint64_t kBarriers = 2 * int4::kMostStages * sizeof(uint64_t);

  uint64_t stage_x_offset = 0;
  uint64_t stage = 0;
  uint64_t sums = 0;

  StreamSizes(const PackedInt4Weight& weight, int32_t m, int32_t cluster, int32_t round_tiles) {
    const int32_t col_tiles = int4::stream_columns(m) / 8;
    stage_x_offset = align_up(static_cast<uint64_t>(round_tiles * weight.unit_bytes()));
    stage = stage_x_offset + align_up(static_cast<uint64_t>(8 * col_tiles * int4::kStreamRowBytes));
    const int32_t tiles = cluster == 1 ? int4::kRoundTiles : divide_up(round_tiles, kPartsOfK) * kPartsOfK;
    sums = static_cast<uint64_t>(tiles * col_tiles * int4::kFragmentBytes);
  }
  uint64_t total(int32_t stages) const { return static_cast<uint64_t>(stages) * stage + sums + kBarriers; }
};

int4::StreamKernel stream_kernel(const PackedInt4Weight& weight, int32_t m, Dtype dtype) {
  int4::StreamKernel kernel = nullptr;
  with_activation_type(dtype, [&](auto element) {
    using T = typename decltype(element)::type;
    kernel = int4::stream_kernel<T>(m, weight.scale_block, weight.asymmetric);
  });
  return kernel;
}

// A cluster's blocks must find room in one group of processors, so not every processor may find a cluster.
int32_t clusters_at_once(int4::StreamKernel kernel, int32_t multiprocessors, uint64_t shared_bytes) {
  cudaLaunchConfig_t config{};
  config.gridDim = static_cast<unsigned>(multiprocessors / kPartsOfK * kPartsOfK);
  config.blockDim = int4::kStreamThreads;
  config.dynamicSmemBytes = shared_bytes;
  cudaLaunchAttribute attribute;
  attribute.id = cudaLaunchAttributeClusterDimension;
  attribute.val.clusterDim.x = static_cast<unsigned>(kPartsOfK);
  attribute.val.clusterDim.y = 1;
  attribute.val.clusterDim.z = 1;
  config.attrs = &attribute;
  config.numAttrs = 1;
  int together = 0;
  LORIKEET_CHECK_CUDA(cudaOccupancyMaxActiveClusters(&together, kernel, &config));
  CHECK_GT(together, 0);
  return together;
}

// The most stages that fit; 0 where not even kFewestStages do.
int32_t stages_for(const StreamSizes& sizes, uint64_t limit) {
  int32_t stages = int4::kMostStages;
  while (stages >= kFewestStages && sizes.total(stages) > limit) stages--;
  return stages >= kFewestStages ? stages : 0;
}

Int4DecodeShape streaming_shape(const PackedInt4Weight& weight, int32_t m, const Int4DecodeDevice& device,
                                int32_t cluster, int32_t groups) {
  Int4DecodeShape shape;
  shape.streams_x = true;
  shape.cluster = cluster;
  // The blocks of a cluster work on one round.
  const int32_t fewest = cluster == 1 ? 1 : divide_up(weight.tiles, int4::kRoundTiles);
  const int32_t used_groups = std::min(std::max(groups, fewest), weight.tiles);
  shape.blocks = used_groups * cluster;
  const int32_t tiles = divide_up(weight.tiles, used_groups);
  const int32_t rounds = divide_up(tiles, int4::kRoundTiles);
  shape.round_tiles = divide_up(tiles, rounds);
  const auto depth = [&] {
    return stages_for(StreamSizes(weight, m, cluster, shape.round_tiles), device.shared_bytes_per_block);
  };
  shape.depth = depth();
  while (cluster == 1 && shape.depth < kEnoughStages && shape.round_tiles > kPartsOfK) {
    shape.round_tiles--;
    shape.depth = depth();
  }
  CHECK_GE(shape.depth, kFewestStages) << weight.n << "x" << weight.k << " with " << m
                                       << " tokens does not fit shared memory";
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

bool int4_stream_fits(const Int4DecodeWish& wish, const Int4DecodeDevice& device) {
  return (wish.cluster <= 1 || device.clusters) && wish.depth <= int4::kMostStages;
}

Int4DecodeShape shape_int4_stream(const PackedInt4Weight& weight, int32_t m, Dtype dtype, const Int4DecodeWish& wish,
                                  const Int4DecodeDevice& device) {
  const int4::StreamKernel kernel = stream_kernel(weight, m, dtype);
  LORIKEET_CHECK_CUDA(cudaFuncSetAttribute(kernel, cudaFuncAttributeMaxDynamicSharedMemorySize,
                                           static_cast<int>(device.shared_bytes_per_block)));
  Int4DecodeShape shape = streaming_shape(weight, m, device, 1, device.multiprocessors);
  if (device.clusters && wish.cluster != 1) {
    const int32_t groups = clusters_at_once(kernel, device.multiprocessors, device.shared_bytes_per_block);
    const Int4DecodeShape divided = streaming_shape(weight, m, device, kPartsOfK, groups);
    if (wish.cluster > 1 ||
        streaming_cost(weight, divided, groups) < streaming_cost(weight, shape, device.multiprocessors)) {
      shape = divided;
    }
  }
  shape.depth = std::min(wish.depth > 0 ? wish.depth : kEnoughStages, shape.depth);
  return shape;
}

void int4_stream(const PackedInt4Weight& weight, const Int4GemmArgs& args, const Int4DecodeShape& shape,
                 const Stream& stream) {
  const StreamSizes sizes(weight, args.m, shape.cluster, shape.round_tiles);
  auto p = int4::common_params<int4::StreamParams>(weight, args);
  p.cluster = shape.cluster;
  p.stages = shape.depth;
  p.round_tiles = shape.round_tiles;
  p.stage_bytes = static_cast<int32_t>(sizes.stage);
  p.stage_x_offset = static_cast<int32_t>(sizes.stage_x_offset);
  p.sums_offset = static_cast<int32_t>(static_cast<uint64_t>(shape.depth) * sizes.stage);
  p.barriers_offset = static_cast<int32_t>(sizes.total(shape.depth) - StreamSizes::kBarriers);
  device::LaunchShape launch;
  launch.blocks = static_cast<unsigned>(shape.blocks);
  launch.overlap = shape.overlap;
  launch.threads = int4::kStreamThreads;
  launch.shared_bytes = sizes.total(shape.depth);
  launch.cluster = static_cast<unsigned>(shape.cluster);
  device::launch(stream_kernel(weight, args.m, args.dtype), launch, stream.handle(), p);
}

}  // namespace lorikeet::kernels
