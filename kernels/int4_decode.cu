#include "kernels/int4_decode.h"

#include <algorithm>

#include "kernels/cuda_check.h"
#include "kernels/element_dispatch.cuh"
#include "kernels/int4_decode_kernels.cuh"
#include "kernels/int4_launch.cuh"
#include "kernels/int4_stream.h"

namespace lorikeet::kernels {
namespace {

using int4::kPartsOfK;
using int4::kTileRows;
using int4::kUnitInputs;

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

int4::DecodeKernel decode_kernel(const PackedInt4Weight& weight, Dtype dtype) {
  int4::DecodeKernel kernel = nullptr;
  with_activation_type(dtype, [&](auto element) {
    using T = typename decltype(element)::type;
    kernel = int4::decode_kernel<T>(weight.scale_block, weight.asymmetric);
  });
  return kernel;
}

int32_t kept_blocks(const PackedInt4Weight& weight, const Int4DecodeDevice& device) {
  return std::min(device.multiprocessors, weight.tiles);
}

bool can_keep_x(const PackedInt4Weight& weight, int32_t m, const Int4DecodeDevice& device) {
  return m <= int4::kDecodeColumns &&
         KeptSizes(weight, m, kept_blocks(weight, device)).total() <= device.shared_bytes_per_block;
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
  if (wish.x == Int4DecodeWish::X::kept) return can_keep_x(weight, m, device);
  return int4_stream_fits(wish, device);
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
    shape = shape_int4_stream(weight, m, dtype, wish, device);
  }
  shape.overlap = wish.overlap && device.clusters;
  return shape;
}

void int4_decode(const PackedInt4Weight& weight, const Int4GemmArgs& args, const Int4DecodeShape& shape,
                 const Stream& stream) {
  if (shape.streams_x) return int4_stream(weight, args, shape, stream);
  const KeptSizes sizes(weight, args.m, shape.blocks);
  auto p = int4::common_params<int4::DecodeParams>(weight, args);
  p.permutation = weight.permutation.as<int32_t>();
  p.x_row_bytes = sizes.x_row_bytes;
  p.parts_offset = static_cast<int32_t>(sizes.x);
  device::LaunchShape launch;
  launch.blocks = static_cast<unsigned>(shape.blocks);
  launch.overlap = shape.overlap;
  launch.threads = int4::kDecodeThreads;
  launch.shared_bytes = sizes.total();
  device::launch(decode_kernel(weight, args.dtype), launch, stream.handle(), p);
}

}  // namespace lorikeet::kernels
