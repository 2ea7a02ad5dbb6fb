#include "kernels/int4/int4_gemm_cuda.h"

#include <algorithm>
#include <map>
#include <optional>
#include <tuple>

#include "kernels/base/cuda_check.h"
#include "kernels/cuda/device_math.cuh"
#include "kernels/cuda/element_dispatch.cuh"
#include "kernels/cuda/library_gemm.h"
#include "kernels/cuda/overlap_launch.cuh"
#include "kernels/int4/base/layout.h"
#include "kernels/int4/decode/int4_decode.h"
#include "kernels/int4/prefill/int4_prefill.h"

namespace lorikeet::kernels {
namespace {

using int4::kTileRows;

constexpr int kThreads = 256;
constexpr uint64_t kDequantizedBytes = 96ULL << 20;  // of weights that are unpacked at a time, at most

unsigned blocks_for(int64_t threads) {
  return static_cast<unsigned>((threads + kThreads - 1) / kThreads);
}

// out[token][k] = x[token][permutation[k]], 0 where that is -1. For desc_act checkpoints.
//   grid     one thread per element, 256 threads, 18 registers, no shared memory; waits for the kernel in front
__global__ void __launch_bounds__(kThreads)
    gather_inputs(const uint16_t* x, int64_t x_stride, const int32_t* permutation, uint16_t* out, int32_t k,
                  int64_t total) {
  device::allow_next_kernel();
  device::wait_for_previous_kernel();
  const int64_t i = static_cast<int64_t>(blockIdx.x) * kThreads + threadIdx.x;
  if (i >= total) return;
  const int32_t from = permutation[i % k];
  out[i] = from < 0 ? uint16_t{0} : x[i / k * x_stride + from];
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

struct Int4Gemm::Impl {
  // Tiles, units, unit bytes, m, dtype, projections and highest rank of LoRA.
  using DecodeKey = std::tuple<int32_t, int32_t, int32_t, int32_t, Dtype, int32_t, int32_t>;

  Int4DecodeDevice device;
  std::optional<LibraryGemm> library;  // where int4_prefill is not available
  int32_t max_rows = 0;
  DeviceBuffer dequantized, products, gathered;
  std::map<DecodeKey, Int4DecodeShape> shapes;
  bool left_room = false;  // the product before this one, for a block of the next

  const Int4DecodeShape& shape(const PackedInt4Weight& weight, int32_t m, Dtype dtype, const Int4LoraSize& lora) {
    const DecodeKey key{weight.tiles, weight.units, weight.unit_bytes(), m, dtype, lora.projections, lora.max_rank};
    const auto found = shapes.find(key);
    if (found != shapes.end()) return found->second;
    Int4DecodeWish wish;
    wish.lora = lora;
    return shapes.emplace(key, shape_int4_decode(weight, m, dtype, wish, device)).first->second;
  }

  // x in the order of the stored inputs, [m, k].
  void gather(const PackedInt4Weight& weight, const Int4GemmArgs& args, const Stream& stream) {
    const int64_t total = static_cast<int64_t>(args.m) * weight.k;
    device::launch_overlapped(gather_inputs, dim3(blocks_for(total)), kThreads, 0, stream.handle(),
                              static_cast<const uint16_t*>(args.x), args.x_stride, weight.permutation.as<int32_t>(),
                              gathered.as<uint16_t>(), weight.k, total);
  }

  void run_decode(const PackedInt4Weight& weight, Int4GemmArgs args, const Stream& stream, bool late_x) {
    Int4LoraSize lora;
    if (args.lora != nullptr) lora = {args.lora->linear.projections, args.lora->rows.max_rank};
    const Int4DecodeShape& launch = shape(weight, args.m, args.dtype, lora);
    if (launch.streams_x && weight.permutation.bytes() > 0) {
      gather(weight, args, stream);
      args.x = gathered.data();
      args.x_stride = weight.k;
    }
    int4_decode(weight, args, launch, stream, args.follows_product && left_room, late_x);
    left_room = launch.leaves_room;
  }

  void run_prefill(const PackedInt4Weight& weight, Int4GemmArgs args, const Stream& stream, int32_t of_rows) {
    if (weight.permutation.bytes() > 0) {
      gather(weight, args, stream);
      args.x = gathered.data();
      args.x_stride = weight.k;
    }
    const int32_t rows = of_rows > 0 ? of_rows : args.m;
    int4_prefill(weight, args, shape_int4_prefill(weight, rows, device.multiprocessors), stream);
  }

  void run_dequantized(const PackedInt4Weight& weight, const Int4GemmArgs& args, const Stream& stream) {
    LibraryGemmArgs product;
    product.x = args.x;
    product.x_stride = args.x_stride;
    product.weight = dequantized.data();
    product.dtype = product.out_dtype = args.dtype;
    product.m = args.m;
    product.k = weight.k;
    if (weight.permutation.bytes() > 0) {
      gather(weight, args, stream);
      product.x = gathered.data();
      product.x_stride = weight.k;
    }
    const auto most = static_cast<int32_t>(kDequantizedBytes / 2 / static_cast<uint64_t>(weight.k) / kTileRows);
    const bool direct = !weight.paired && args.bias == nullptr;
    for (int32_t tile = 0; tile < weight.tiles; tile += most) {
      const int32_t tiles = std::min(most, weight.tiles - tile);
      const int32_t rows = tiles * kTileRows;
      dequantize_cuda(weight, args.dtype, dequantized.data(), tile, tiles, stream);
      product.n = direct ? std::min(rows, weight.n - tile * kTileRows) : rows;
      product.out = direct ? static_cast<uint16_t*>(args.y) + tile * kTileRows : products.data();
      product.out_stride = direct ? args.y_stride : rows;
      library->run(product, stream);
      if (direct) continue;
      const FinishArgs finish{products.data(), args.y, args.bias, args.y_stride, args.m,
                              weight.n,        tile,   rows,      weight.paired, args.silu_mul};
      const int64_t outputs = static_cast<int64_t>(args.m) * tiles * (args.silu_mul ? 8 : kTileRows);
      with_activation_type(args.dtype, [&](auto element) {
        using T = typename decltype(element)::type;
        finish_products<T><<<blocks_for(outputs), kThreads, 0, stream.handle()>>>(finish);
      });
      LORIKEET_CHECK_CUDA(cudaGetLastError());
    }
  }
};

Int4Gemm::Int4Gemm(std::unique_ptr<Impl> impl) : impl_(std::move(impl)) {}
Int4Gemm::Int4Gemm(Int4Gemm&&) noexcept = default;
Int4Gemm& Int4Gemm::operator=(Int4Gemm&&) noexcept = default;
Int4Gemm::~Int4Gemm() = default;

Result<Int4Gemm> Int4Gemm::make(int32_t max_rows, int32_t max_outputs, int32_t max_inputs) {
  auto impl = std::make_unique<Impl>();
  impl->device = Int4DecodeDevice::current();
  if (impl->device.shared_bytes_per_block < kFewestSharedBytes) {
    return fail("the int4 kernels need {} KiB of shared memory for a block, and this GPU has {}",
                kFewestSharedBytes >> 10, impl->device.shared_bytes_per_block >> 10);
  }
  impl->max_rows = max_rows;
  const auto allocate = [](DeviceBuffer& buffer, uint64_t bytes) -> Result<void> {
    Result<DeviceBuffer> made = DeviceBuffer::allocate(bytes, "the scratch of the int4 products");
    if (!made) return tl::unexpected(made.error());
    buffer = std::move(*made);
    return {};
  };
  const uint64_t rows = static_cast<uint64_t>(max_rows);
  if (Result<void> r = allocate(impl->gathered, 2 * rows * static_cast<uint64_t>(max_inputs)); !r) {
    return tl::unexpected(r.error());
  }
  if (max_rows > kInt4DecodeRows && !int4_prefill_available()) {
    Result<LibraryGemm> library = LibraryGemm::make();
    if (!library) return tl::unexpected(library.error());
    impl->library = std::move(*library);
    if (Result<void> r = allocate(impl->dequantized, kDequantizedBytes); !r) return tl::unexpected(r.error());
    if (Result<void> r = allocate(impl->products, 2 * rows * (static_cast<uint64_t>(max_outputs) + 2 * kTileRows));
        !r) {
      return tl::unexpected(r.error());
    }
  }
  return Int4Gemm(std::move(impl));
}

bool Int4Gemm::takes_norm(const PackedInt4Weight& weight, int32_t m, Dtype dtype) {
  return m <= kNormRows && int4_decode_takes_norm(weight, impl_->shape(weight, m, dtype, {}));
}

bool Int4Gemm::takes_parts() const {
  return !impl_->library;  // whose algorithm depends on the number of rows
}

void Int4Gemm::run(const PackedInt4Weight& weight, const Int4GemmArgs& args, const Stream& stream, bool late_x,
                   int32_t of_rows) {
  if (args.m == 0 || weight.n == 0) return;
  CHECK_GT(args.m, 0);
  CHECK_LE(args.m, impl_->max_rows);
  CHECK_EQ(args.x_stride % 8, 0);
  CHECK(!args.silu_mul || weight.paired);
  CHECK(args.lora == nullptr || (args.m <= kInt4DecodeRows && args.bias == nullptr));
  if (args.m <= kInt4DecodeRows) {
    impl_->run_decode(weight, args, stream, late_x);
    return;
  }
  impl_->left_room = false;
  if (!impl_->library) {
    impl_->run_prefill(weight, args, stream, of_rows);
  } else {
    impl_->run_dequantized(weight, args, stream);
  }
}

bool Int4Gemm::takes_lora(const PackedInt4Weight& weight, int32_t m, const LoraLinear& linear, int32_t max_rank) const {
  return m > 0 && m <= kInt4DecodeRows && int4_decode_takes_lora(weight, m, linear, max_rank, impl_->device);
}

}  // namespace lorikeet::kernels
