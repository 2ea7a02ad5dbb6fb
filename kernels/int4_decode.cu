#include "kernels/int4_decode.h"

#include <algorithm>

#include "kernels/cuda_check.h"
#include "kernels/element_dispatch.cuh"
#include "kernels/int4_decode_kernels.cuh"

namespace lorikeet::kernels {
namespace {

using int4::kPartsOfK;
using int4::kTileRows;
using int4::kUnitInputs;

constexpr int32_t kFewestStages = 2;
constexpr int32_t kEnoughStages = 3;       // fewer do not hide the memory's latency: rather fewer tiles at a time
constexpr uint64_t kMostKept = 128 << 10;  // bytes of x: to bring more to every block takes longer than to stream it

int32_t divide_up(int32_t a, int32_t b) {
  return (a + b - 1) / b;
}
uint64_t align_up(uint64_t bytes) {
  return (bytes + 127) / 128 * 128;
}

// Shared memory of a block that keeps x.
struct KeptSizes {
  uint64_t x = 0;      // of all tokens
  uint64_t parts = 0;  // of all of the block's tiles
  int32_t x_row_bytes = 0;

  KeptSizes(const PackedInt4Weight& weight, int32_t m, int32_t blocks) {
    x_row_bytes = weight.units * int4::kDecodeUnitXBytes + int4::kDecodeRowPadding;
    x = align_up(static_cast<uint64_t>(m) * static_cast<uint64_t>(x_row_bytes));
    parts = static_cast<uint64_t>(divide_up(weight.tiles, blocks) * kPartsOfK * m * kTileRows) * sizeof(float);
  }
  uint64_t total() const { return x + parts; }
};

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

int4::DecodeKernel decode_kernel(const PackedInt4Weight& weight, Dtype dtype) {
  int4::DecodeKernel kernel = nullptr;
  with_activation_type(dtype, [&](auto element) {
    using T = typename decltype(element)::type;
    kernel = int4::decode_kernel<T>(weight.scale_block, weight.asymmetric);
  });
  return kernel;
}

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

int32_t kept_blocks(const PackedInt4Weight& weight, const Int4DecodeDevice& device) {
  return std::min(device.multiprocessors, weight.tiles);
}

bool can_keep_x(const PackedInt4Weight& weight, int32_t m, const Int4DecodeDevice& device) {
  return m <= int4::kDecodeColumns &&
         KeptSizes(weight, m, kept_blocks(weight, device)).total() <= device.shared_bytes_per_block;
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

int4::OutputParams output_params(const PackedInt4Weight& weight, const Int4GemmArgs& args) {
  return {args.y, args.bias, args.y_stride, weight.n, weight.scale_factor, weight.paired, args.silu_mul};
}

template <class Params>
Params common_params(const PackedInt4Weight& weight, const Int4GemmArgs& args) {
  Params p{};
  p.weight = weight.data.as<uint8_t>();
  p.x = args.x;
  p.x_stride = args.x_stride;
  p.out = output_params(weight, args);
  p.m = args.m;
  p.k = weight.k;
  p.tiles = weight.tiles;
  p.units = weight.units;
  return p;
}

}  // namespace

Int4DecodeDevice Int4DecodeDevice::current() {
  const DeviceProperties properties = device_properties();
  // A kernel compiled at run time from an earlier device's PTX runs its path, not this device's.
  cudaFuncAttributes attributes{};
  LORIKEET_CHECK_CUDA(cudaFuncGetAttributes(&attributes, int4::decode_kernel<__half>(kUnitInputs, false)));
  return {properties.multiprocessors, properties.shared_bytes_per_block, attributes.ptxVersion >= 90};
}

bool int4_decode_fits(const PackedInt4Weight& weight, int32_t m, const Int4DecodeWish& wish,
                      const Int4DecodeDevice& device) {
  if (wish.cluster > 1 && !device.clusters) return false;
  if (wish.x == Int4DecodeWish::X::kept) return can_keep_x(weight, m, device);
  return wish.depth <= int4::kMostStages;
}

Int4DecodeShape shape_int4_decode(const PackedInt4Weight& weight, int32_t m, Dtype dtype, const Int4DecodeWish& wish,
                                  const Int4DecodeDevice& device) {
  CHECK_GT(m, 0);
  CHECK_LE(m, kInt4DecodeRows);
  const auto limit = static_cast<int>(device.shared_bytes_per_block);
  Int4DecodeShape shape;
  const bool fits = can_keep_x(weight, m, device);
  const bool small = KeptSizes(weight, m, kept_blocks(weight, device)).x <= kMostKept;
  if (wish.x == Int4DecodeWish::X::kept || (wish.x == Int4DecodeWish::X::any && fits && small)) {
    CHECK(fits) << "x of " << m << " tokens does not fit shared memory";
    shape.blocks = kept_blocks(weight, device);
    LORIKEET_CHECK_CUDA(
        cudaFuncSetAttribute(decode_kernel(weight, dtype), cudaFuncAttributeMaxDynamicSharedMemorySize, limit));
  } else {
    const int4::StreamKernel kernel = stream_kernel(weight, m, dtype);
    LORIKEET_CHECK_CUDA(cudaFuncSetAttribute(kernel, cudaFuncAttributeMaxDynamicSharedMemorySize, limit));
    shape = streaming_shape(weight, m, device, 1, device.multiprocessors);
    if (device.clusters && wish.cluster != 1) {
      const int32_t groups = clusters_at_once(kernel, device.multiprocessors, device.shared_bytes_per_block);
      const Int4DecodeShape divided = streaming_shape(weight, m, device, kPartsOfK, groups);
      if (wish.cluster > 1 ||
          streaming_cost(weight, divided, groups) < streaming_cost(weight, shape, device.multiprocessors))
        shape = divided;
    }
    shape.depth = std::min(wish.depth > 0 ? wish.depth : kEnoughStages, shape.depth);
  }
  shape.overlap = wish.overlap && device.clusters;
  return shape;
}

void int4_decode(const PackedInt4Weight& weight, const Int4GemmArgs& args, const Int4DecodeShape& shape,
                 const Stream& stream) {
  device::LaunchShape launch;
  launch.blocks = static_cast<unsigned>(shape.blocks);
  launch.overlap = shape.overlap;
  if (shape.streams_x) {
    const StreamSizes sizes(weight, args.m, shape.cluster, shape.round_tiles);
    auto p = common_params<int4::StreamParams>(weight, args);
    p.cluster = shape.cluster;
    p.stages = shape.depth;
    p.round_tiles = shape.round_tiles;
    p.stage_bytes = static_cast<int32_t>(sizes.stage);
    p.stage_x_offset = static_cast<int32_t>(sizes.stage_x_offset);
    p.sums_offset = static_cast<int32_t>(static_cast<uint64_t>(shape.depth) * sizes.stage);
    p.barriers_offset = static_cast<int32_t>(sizes.total(shape.depth) - StreamSizes::kBarriers);
    launch.threads = int4::kStreamThreads;
    launch.shared_bytes = sizes.total(shape.depth);
    launch.cluster = static_cast<unsigned>(shape.cluster);
    device::launch(stream_kernel(weight, args.m, args.dtype), launch, stream.handle(), p);
    return;
  }
  const KeptSizes sizes(weight, args.m, shape.blocks);
  auto p = common_params<int4::DecodeParams>(weight, args);
  p.permutation = weight.permutation.as<int32_t>();
  p.x_row_bytes = sizes.x_row_bytes;
  p.parts_offset = static_cast<int32_t>(sizes.x);
  launch.threads = int4::kDecodeThreads;
  launch.shared_bytes = sizes.total();
  device::launch(decode_kernel(weight, args.dtype), launch, stream.handle(), p);
}

}  // namespace lorikeet::kernels
