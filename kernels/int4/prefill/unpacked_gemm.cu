#include "kernels/int4/prefill/unpacked_gemm.h"

#include <algorithm>
#include <utility>

#include "kernels/base/cuda_check.h"
#include "kernels/cuda/device_math.cuh"
#include "kernels/cuda/element_dispatch.cuh"
#include "kernels/int4/base/layout.h"

namespace lorikeet::kernels {
namespace {

using int4::kTileRows;

constexpr int kThreads = 256;
constexpr uint64_t kDequantizedBytes = 96ULL << 20;  // of weights that are unpacked at a time, at most

unsigned blocks_for(int64_t threads) {
  return static_cast<unsigned>((threads + kThreads - 1) / kThreads);
}

struct FinishArgs {
  const void* products;  // [m, rows] in packed order
  void* y;
  const float* bias;
  int64_t y_stride;
  int32_t m, n, first_tile, rows;
  bool paired, silu_mul;
};

// What follows the product of unpacked weights: order, bias, SiLU-mul. One thread per output.
//   grid     tokens * outputs / 256, 256 threads, 24 registers, no shared memory; launched in the ordinary way
template <class T>
__global__ void __launch_bounds__(kThreads) finish_products(FinishArgs args) {
  const int per_tile = args.silu_mul ? 8 : kTileRows;
  const int64_t outputs = args.rows / kTileRows * per_tile;
  const int64_t i = static_cast<int64_t>(blockIdx.x) * kThreads + threadIdx.x;
  if (i >= outputs * args.m) return;
  const int64_t token = i / outputs;
  const int tile = static_cast<int>(i % outputs) / per_tile;
  const int row = static_cast<int>(i % outputs) % per_tile;
  const T* product = static_cast<const T*>(args.products) + token * args.rows + tile * kTileRows + row;
  T* y = static_cast<T*>(args.y) + token * args.y_stride;
  auto value = [&](int half) {
    const int first = (args.first_tile + tile) * 8 + row;
    const int output = args.paired ? first + half * (args.n / 2) : (args.first_tile + tile) * kTileRows + row;
    const float bias = args.bias != nullptr && output < args.n ? args.bias[output] : 0.0F;
    return device::to_float(product[8 * half]) + bias;
  };
  if (args.silu_mul) {
    const int output = (args.first_tile + tile) * 8 + row;
    if (output >= args.n / 2) return;
    const float gate = value(0);
    y[output] = device::from_float<T>(gate / (1.0F + __expf(-gate)) * value(1));
    return;
  }
  int output = (args.first_tile + tile) * kTileRows + row;
  int limit = args.n;
  if (args.paired) {
    output = (args.first_tile + tile) * 8 + row % 8;
    limit = args.n / 2;
  }
  if (output >= limit) return;
  if (args.paired && row >= 8) output += args.n / 2;
  const float bias = args.bias != nullptr ? args.bias[output] : 0.0F;
  y[output] = device::from_float<T>(device::to_float(*product) + bias);
}

}  // namespace

UnpackedInt4Gemm::UnpackedInt4Gemm(LibraryGemm library, DeviceBuffer dequantized, DeviceBuffer products)
    : library_(std::move(library)), dequantized_(std::move(dequantized)), products_(std::move(products)) {}

Result<UnpackedInt4Gemm> UnpackedInt4Gemm::make(int32_t max_rows, int32_t max_outputs) {
  constexpr std::string_view kPurpose = "unpacked int4 weights";
  Result<LibraryGemm> library = LibraryGemm::make();
  if (!library) return tl::unexpected(library.error());
  Result<DeviceBuffer> dequantized = DeviceBuffer::allocate(kDequantizedBytes, kPurpose);
  if (!dequantized) return tl::unexpected(dequantized.error());
  Result<DeviceBuffer> products = DeviceBuffer::allocate(
      2 * static_cast<uint64_t>(max_rows) * (static_cast<uint64_t>(max_outputs) + 2 * kTileRows), kPurpose);
  if (!products) return tl::unexpected(products.error());
  return UnpackedInt4Gemm(std::move(*library), std::move(*dequantized), std::move(*products));
}

void UnpackedInt4Gemm::run(const PackedInt4Weight& weight, const Int4GemmArgs& args, const Stream& stream) {
  LibraryGemmArgs product;
  product.x = args.x;
  product.x_stride = args.x_stride;
  product.weight = dequantized_.data();
  product.dtype = product.out_dtype = args.dtype;
  product.m = args.m;
  product.k = weight.k;
  const auto most = static_cast<int32_t>(kDequantizedBytes / 2 / static_cast<uint64_t>(weight.k) / kTileRows);
  const bool direct = !weight.paired && args.bias == nullptr;
  for (int32_t tile = 0; tile < weight.tiles; tile += most) {
    const int32_t tiles = std::min(most, weight.tiles - tile);
    const int32_t rows = tiles * kTileRows;
    dequantize_cuda(weight, args.dtype, dequantized_.data(), tile, tiles, stream);
    product.n = direct ? std::min(rows, weight.n - tile * kTileRows) : rows;
    product.out = direct ? static_cast<uint16_t*>(args.y) + tile * kTileRows : products_.data();
    product.out_stride = direct ? args.y_stride : rows;
    library_.run(product, stream);
    if (direct) continue;
    const FinishArgs finish{products_.data(), args.y, args.bias, args.y_stride, args.m,
                            weight.n,         tile,   rows,      weight.paired, args.silu_mul};
    const int64_t outputs = static_cast<int64_t>(args.m) * tiles * (args.silu_mul ? 8 : kTileRows);
    with_activation_type(args.dtype, [&](auto element) {
      using T = typename decltype(element)::type;
      finish_products<T><<<blocks_for(outputs), kThreads, 0, stream.handle()>>>(finish);
    });
    LORIKEET_CHECK_CUDA(cudaGetLastError());
  }
}

}  // namespace lorikeet::kernels
