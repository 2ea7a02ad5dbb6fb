#include "kernels/int4_decode.h"

#include <algorithm>

#include "kernels/cuda_check.h"
#include "kernels/element_dispatch.cuh"
#include "kernels/int4_decode.cuh"

namespace lorikeet::kernels {
namespace {

using int4::kTileRows;
using int4::kUnitInputs;

// x is cut finer than this over a cluster's blocks, so that the rings have room.
constexpr uint64_t kStagedBytes = 64 << 10;
constexpr int32_t kPortableCluster = 8;
constexpr int32_t kFewestRingSlots = 2;
constexpr int32_t kMostRingSlots = 4;

int32_t divide_up(int32_t a, int32_t b) {
  return (a + b - 1) / b;
}
uint64_t align_up(uint64_t bytes) {
  return (bytes + 127) / 128 * 128;
}

struct SharedSizes {
  uint64_t ring_slot = 0;  // one slot of every warp, and its barriers
  uint64_t staged = 0;     // x and its sums
  uint64_t tile = 0;       // the sums of one tile's slabs
  int32_t x_row_bytes = 0;

  SharedSizes(const PackedInt4Weight& weight, int32_t m, int32_t cluster) {
    const int32_t units = std::min(divide_up(weight.slabs(), cluster) * weight.slab_units, weight.units);
    const int32_t columns = divide_up(m, 8) * 8;
    ring_slot = static_cast<uint64_t>(int4::kWarps * (weight.slab_units * weight.unit_bytes() + 8));
    x_row_bytes = units * kUnitInputs * 2 + int4::kRowPadding;
    staged = align_up(static_cast<uint64_t>(m) * static_cast<uint64_t>(x_row_bytes)) +
             align_up(static_cast<uint64_t>(units * (kUnitInputs / weight.scale_block) * columns) * sizeof(float));
    tile = static_cast<uint64_t>(weight.slabs() * m * kTileRows) * sizeof(float);
  }
};

int4::DecodeKernel kernel_for(const PackedInt4Weight& weight, int32_t m, Dtype dtype) {
  int4::DecodeKernel kernel = nullptr;
  with_activation_type(dtype, [&](auto element) {
    using T = typename decltype(element)::type;
    kernel = int4::decode_kernel<T>(divide_up(m, 8), weight.scale_block, weight.asymmetric);
  });
  return kernel;
}

// A cluster's blocks must find room in one group of processors, so not every processor may find a cluster.
int32_t clusters_at_once(int4::DecodeKernel kernel, const Int4DecodeShape& shape, uint64_t shared_bytes) {
  cudaLaunchConfig_t config{};
  config.gridDim = static_cast<unsigned>(shape.clusters * shape.cluster);
  config.blockDim = int4::kThreads;
  config.dynamicSmemBytes = shared_bytes;
  cudaLaunchAttribute attribute;
  attribute.id = cudaLaunchAttributeClusterDimension;
  attribute.val.clusterDim.x = static_cast<unsigned>(shape.cluster);
  attribute.val.clusterDim.y = 1;
  attribute.val.clusterDim.z = 1;
  config.attrs = &attribute;
  config.numAttrs = 1;
  int together = 0;
  LORIKEET_CHECK_CUDA(cudaOccupancyMaxActiveClusters(&together, kernel, &config));
  CHECK_GT(together, 0);
  return together;
}

}  // namespace

Int4DecodeDevice Int4DecodeDevice::current() {
  const DeviceProperties properties = device_properties();
  // A kernel compiled at run time from an earlier device's PTX runs its path, not this device's.
  cudaFuncAttributes attributes{};
  LORIKEET_CHECK_CUDA(cudaFuncGetAttributes(&attributes, int4::decode_kernel<__half>(1, kUnitInputs, false)));
  return {properties.multiprocessors, properties.shared_bytes_per_block, attributes.ptxVersion >= 90};
}

bool int4_decode_fits(const PackedInt4Weight& weight, int32_t m, const Int4DecodeWish& wish,
                      const Int4DecodeDevice& device) {
  CHECK_GT(wish.cluster, 0);
  const SharedSizes sizes(weight, m, wish.cluster);
  const uint64_t limit = wish.shared_bytes > 0 ? std::min(wish.shared_bytes, device.shared_bytes_per_block)
                                               : device.shared_bytes_per_block;
  const int32_t depth = wish.ring_depth > 0 ? wish.ring_depth : kFewestRingSlots;
  return align_up(static_cast<uint64_t>(depth) * sizes.ring_slot) + sizes.staged + 2 * sizes.tile <= limit;
}

Int4DecodeShape shape_int4_decode(const PackedInt4Weight& weight, int32_t m, Dtype dtype, const Int4DecodeWish& wish,
                                  const Int4DecodeDevice& device) {
  CHECK_GT(m, 0);
  CHECK_LE(m, kInt4DecodePassRows);
  const uint64_t limit = wish.shared_bytes > 0 ? std::min(wish.shared_bytes, device.shared_bytes_per_block)
                                               : device.shared_bytes_per_block;
  Int4DecodeShape shape;
  shape.overlap = wish.overlap && device.clusters;
  shape.cluster = wish.cluster > 0 ? wish.cluster : 2;
  if (wish.cluster == 0) {
    while (shape.cluster < kPortableCluster && SharedSizes(weight, m, shape.cluster).staged > kStagedBytes) {
      shape.cluster *= 2;
    }
    if (!device.clusters) {  // no such limit, and less shared memory
      while (SharedSizes(weight, m, shape.cluster).staged + kFewestRingSlots * SharedSizes(weight, m, 1).ring_slot >
             limit) {
        shape.cluster *= 2;
      }
    }
  }
  const SharedSizes sizes(weight, m, shape.cluster);
  shape.clusters = std::max(1, std::min(device.multiprocessors / shape.cluster, weight.tiles));
  const int4::DecodeKernel kernel = kernel_for(weight, m, dtype);
  LORIKEET_CHECK_CUDA(
      cudaFuncSetAttribute(kernel, cudaFuncAttributeMaxDynamicSharedMemorySize, static_cast<int>(limit)));
  if (!device.clusters) {
    shape.ring_depth = kFewestRingSlots;  // the depth for which the kernel is compiled there
    shape.round_tiles = divide_up(weight.tiles, shape.clusters);
    CHECK_LE(sizes.staged + kFewestRingSlots * sizes.ring_slot, limit);
    return shape;
  }
  shape.clusters = std::min(shape.clusters, clusters_at_once(kernel, shape, limit));
  // All tiles in one round if that leaves the rings their depth, else two buffers that alternate.
  const int32_t owned = divide_up(divide_up(weight.tiles, shape.clusters), shape.cluster);
  const int32_t most = wish.ring_depth > 0 ? wish.ring_depth : kMostRingSlots;
  const int32_t fewest = wish.ring_depth > 0 ? wish.ring_depth : kFewestRingSlots;
  const auto fits = [&](int32_t depth, int32_t tile_buffers) {
    return align_up(static_cast<uint64_t>(depth) * sizes.ring_slot) + sizes.staged +
               static_cast<uint64_t>(tile_buffers) * sizes.tile <=
           limit;
  };
  shape.round_tiles = owned * shape.cluster;
  for (shape.ring_depth = most; shape.ring_depth >= fewest; shape.ring_depth--) {
    if (fits(shape.ring_depth, owned)) return shape;
  }
  shape.ring_depth = fewest;
  int32_t owned_at_once = owned;
  while (owned_at_once > 1 && !fits(fewest, 2 * owned_at_once)) owned_at_once--;
  CHECK(fits(fewest, 2 * owned_at_once)) << weight.n << "x" << weight.k << " with " << m
                                         << " tokens does not fit shared memory";
  shape.round_tiles = owned_at_once * shape.cluster;
  return shape;
}

uint64_t int4_decode_scratch_bytes(int32_t max_outputs, int32_t max_inputs, const Int4DecodeDevice& device) {
  if (device.clusters) return 0;
  const int32_t tiles = divide_up(max_outputs, 8) + 1;  // of a pair with an odd number of outputs
  const int32_t slabs = divide_up(divide_up(max_inputs, kUnitInputs), 4);
  return static_cast<uint64_t>(tiles) * static_cast<uint64_t>(slabs) * kInt4DecodePassRows * kTileRows * sizeof(float);
}

void int4_decode(const PackedInt4Weight& weight, const Int4GemmArgs& args, const Int4DecodeShape& shape,
                 const Int4DecodeDevice& device, float* scratch, const Stream& stream) {
  const SharedSizes sizes(weight, args.m, shape.cluster);
  int4::DecodeParams p{};
  p.weight = weight.data.as<uint8_t>();
  p.permutation = weight.permutation.as<int32_t>();
  p.x = args.x;
  p.y = args.y;
  p.bias = args.bias;
  p.scratch = scratch;
  p.x_stride = args.x_stride;
  p.y_stride = args.y_stride;
  p.m = args.m;
  p.n = weight.n;
  p.k = weight.k;
  p.tiles = weight.tiles;
  p.units = weight.units;
  p.slab_units = weight.slab_units;
  p.slabs = weight.slabs();
  p.cluster = shape.cluster;
  p.clusters = shape.clusters;
  p.ring_depth = shape.ring_depth;
  p.round_tiles = shape.round_tiles;
  const int32_t rounds = divide_up(divide_up(weight.tiles, shape.clusters), shape.round_tiles);
  p.exchange_buffers = rounds > 1 ? 2 : 1;
  p.x_row_bytes = sizes.x_row_bytes;
  const uint64_t ring = static_cast<uint64_t>(shape.ring_depth) * (sizes.ring_slot - 8 * int4::kWarps);
  const uint64_t barriers = static_cast<uint64_t>(shape.ring_depth) * 8 * int4::kWarps;
  p.barriers_offset = static_cast<int32_t>(ring);
  const uint64_t x = align_up(ring + barriers);
  const uint64_t x_bytes = align_up(static_cast<uint64_t>(args.m) * static_cast<uint64_t>(sizes.x_row_bytes));
  p.x_offset = static_cast<int32_t>(x);
  p.sums_offset = static_cast<int32_t>(x + x_bytes);
  p.exchange_offset = static_cast<int32_t>(x + sizes.staged);
  uint64_t shared = x + sizes.staged;
  if (device.clusters) {
    shared += static_cast<uint64_t>(p.exchange_buffers) * static_cast<uint64_t>(shape.round_tiles / shape.cluster) *
              sizes.tile;
  }
  p.paired = weight.paired;
  p.silu_mul = args.silu_mul;

  const int4::DecodeKernel kernel = kernel_for(weight, args.m, args.dtype);
  with_activation_type(args.dtype, [&](auto element) {
    using T = typename decltype(element)::type;
    p.factor = weight.scale_factor * int4::Magnitude<T>::kInverse;
    device::LaunchShape launch_shape;
    launch_shape.blocks = static_cast<unsigned>(shape.cluster * shape.clusters);
    launch_shape.threads = int4::kThreads;
    launch_shape.shared_bytes = shared;
    launch_shape.cluster = device.clusters ? static_cast<unsigned>(shape.cluster) : 1;
    launch_shape.overlap = shape.overlap;
    device::launch(kernel, launch_shape, stream.handle(), p);
    if (!device.clusters) {
      launch_shape = {static_cast<unsigned>(weight.tiles), int4::kThreads, 0, 1, false};
      device::launch(int4::add_slabs_kernel<T>(), launch_shape, stream.handle(), p);
    }
  });
}

}  // namespace lorikeet::kernels
