#include "kernels/int4/int4_gemm_cuda.h"

#include <map>
#include <optional>
#include <tuple>

#include "kernels/cuda/overlap_launch.cuh"
#include "kernels/int4/decode/int4_decode.h"
#include "kernels/int4/prefill/int4_prefill.h"
#include "kernels/int4/prefill/int4_warp_prefill.h"
#include "kernels/int4/prefill/unpacked_gemm.h"

namespace lorikeet::kernels {
namespace {

constexpr int kThreads = 256;
static_assert(kInt4FewestRowsInParts >= kInt4WholeAreaRows);

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

}  // namespace

struct Int4Gemm::Impl {
  // Tiles, units, unit bytes, m, dtype, projections and highest rank of LoRA.
  using DecodeKey = std::tuple<int32_t, int32_t, int32_t, int32_t, Dtype, int32_t, int32_t>;

  Int4DecodeDevice device;
  // For more tokens than kInt4DecodeRows: where the device has warpgroup steps; where not; and there for more than
  // kInt4WarpPrefillRows.
  std::optional<Int4PrefillScratch> scratch;
  std::optional<Int4WarpPrefillScratch> warp_scratch;
  std::optional<UnpackedInt4Gemm> unpacked;
  int32_t max_rows = 0;
  DeviceBuffer gathered;
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
    if (device.groups) {
      const int32_t rows = of_rows > 0 ? of_rows : args.m;
      int4_prefill(weight, args, shape_int4_prefill(weight, rows, device.multiprocessors), *scratch, stream);
    } else if (args.m <= kInt4WarpPrefillRows) {
      int4_warp_prefill(weight, args, shape_int4_warp_prefill(weight, args.m, device), *warp_scratch, stream);
    } else {
      unpacked->run(weight, args, stream);
    }
  }
};

Int4Gemm::Int4Gemm(std::unique_ptr<Impl> impl) : impl_(std::move(impl)) {}
Int4Gemm::Int4Gemm(Int4Gemm&&) noexcept = default;
Int4Gemm& Int4Gemm::operator=(Int4Gemm&&) noexcept = default;
Int4Gemm::~Int4Gemm() = default;

Result<Int4Gemm> Int4Gemm::make(int32_t max_rows, int32_t max_outputs, int32_t max_inputs) {
  return make(max_rows, max_outputs, max_inputs, Int4DecodeDevice::current());
}

Result<Int4Gemm> Int4Gemm::make(int32_t max_rows, int32_t max_outputs, int32_t max_inputs,
                                const Int4DecodeDevice& device) {
  auto impl = std::make_unique<Impl>();
  impl->device = device;
  if (impl->device.shared_bytes_per_block < kFewestSharedBytes) {
    return fail("the int4 kernels need {} KiB of shared memory for a block, and this GPU has {}",
                kFewestSharedBytes >> 10, impl->device.shared_bytes_per_block >> 10);
  }
  impl->max_rows = max_rows;
  const uint64_t rows = static_cast<uint64_t>(max_rows);
  Result<DeviceBuffer> gathered =
      DeviceBuffer::allocate(2 * rows * static_cast<uint64_t>(max_inputs), "the scratch of the int4 products");
  if (!gathered) return tl::unexpected(gathered.error());
  impl->gathered = std::move(*gathered);
  if (max_rows > kInt4DecodeRows && device.groups) {
    Result<Int4PrefillScratch> scratch = Int4PrefillScratch::make(device.multiprocessors);
    if (!scratch) return tl::unexpected(scratch.error());
    impl->scratch = std::move(*scratch);
  }
  if (max_rows > kInt4DecodeRows && !device.groups) {
    Result<Int4WarpPrefillScratch> scratch = Int4WarpPrefillScratch::make(device);
    if (!scratch) return tl::unexpected(scratch.error());
    impl->warp_scratch = std::move(*scratch);
  }
  if (max_rows > kInt4WarpPrefillRows && !device.groups) {
    Result<UnpackedInt4Gemm> unpacked = UnpackedInt4Gemm::make(max_rows, max_outputs);
    if (!unpacked) return tl::unexpected(unpacked.error());
    impl->unpacked = std::move(*unpacked);
  }
  return Int4Gemm(std::move(impl));
}

bool Int4Gemm::takes_norm(const PackedInt4Weight& weight, int32_t m, Dtype dtype, const Int4LoraSize& lora) {
  return m <= kNormRows && int4_decode_takes_norm(weight, impl_->shape(weight, m, dtype, lora));
}

bool Int4Gemm::takes_x_for_lora(const PackedInt4Weight& weight, int32_t m, Dtype dtype, const Int4LoraSize& lora) {
  return impl_->shape(weight, m, dtype, lora).one_token_rank == 0;
}

int32_t Int4Gemm::lora_blocks(const PackedInt4Weight& weight, int32_t m, Dtype dtype, const Int4LoraSize& lora) {
  return impl_->shape(weight, m, dtype, lora).blocks;
}

bool Int4Gemm::takes_parts() const {
  return impl_->device.groups;  // the other kernels divide sums by the number of rows
}

void Int4Gemm::run(const PackedInt4Weight& weight, const Int4GemmArgs& args, const Stream& stream, bool late_x,
                   int32_t of_rows) {
  if (args.m == 0 || weight.n == 0) return;
  CHECK_GT(args.m, 0);
  CHECK_LE(args.m, impl_->max_rows);
  CHECK_EQ(args.x_stride % 8, 0);
  CHECK(of_rows == 0 || of_rows >= kInt4FewestRowsInParts);
  CHECK(!args.silu_mul || weight.paired);
  CHECK(args.lora == nullptr || (args.m <= kInt4DecodeRows && args.bias == nullptr));
  if (args.m <= kInt4DecodeRows) {
    impl_->run_decode(weight, args, stream, late_x);
    return;
  }
  impl_->left_room = false;
  impl_->run_prefill(weight, args, stream, of_rows);
}

bool Int4Gemm::takes_lora(const PackedInt4Weight& weight, int32_t m, const LoraLinear& linear, int32_t max_rank) const {
  return m > 0 && m <= kInt4DecodeRows && int4_decode_takes_lora(weight, m, linear, max_rank, impl_->device);
}

}  // namespace lorikeet::kernels
