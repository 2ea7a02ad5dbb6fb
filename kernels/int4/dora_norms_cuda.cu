#include <algorithm>

#include "kernels/base/cuda_check.h"
#include "kernels/cuda/device_math.cuh"
#include "kernels/cuda/element_dispatch.cuh"
#include "kernels/int4/base/layout.h"
#include "kernels/int4/dora_norms_cuda.h"

namespace lorikeet::kernels {
namespace {

constexpr int kThreads = 256;
constexpr int kWarps = kThreads / device::kWarpSize;
constexpr int kRankPiece = 64;  // of a row of B in shared memory

// Rows of W as they lie in memory, and which outputs of the pair they are.
struct Rows {
  const void* weight;          // [rows, k]
  const int32_t* permutation;  // null, or [k]: the input that a column takes; -1: none
  int32_t k;
  int32_t first_row;     // of the whole weight
  int32_t first_output;  // of the pair
  int32_t half_outputs;  // > 0: rows of a tile alternate, 8 of one half of the outputs, 8 of the other
};

__device__ __forceinline__ int output_of(const Rows& rows, int row) {
  if (rows.half_outputs == 0) return row;
  const int within = row % int4::kTileRows;
  return row / int4::kTileRows * 8 + within % 8 + within / 8 * rows.half_outputs;
}

// One CTA per row. When an adapter is loaded, never in a step.
//   grid     rows, 256 threads, 32 registers, 288 B of shared memory
template <class T>
__global__ void __launch_bounds__(kThreads) squared_norms(Rows rows, DoraPair pair, float* norms) {
  const int row = rows.first_row + blockIdx.x;
  if (rows.half_outputs > 0 && row / int4::kTileRows * 8 + row % 8 >= rows.half_outputs) return;  // fills a tile up
  const int output = output_of(rows, row) - rows.first_output;
  if (output < 0 || output >= pair.outputs) return;
  const T* weight = static_cast<const T*>(rows.weight) + static_cast<size_t>(blockIdx.x) * rows.k;
  const float* b = pair.b + static_cast<size_t>(output) * pair.rank;
  __shared__ float b_piece[kRankPiece];
  __shared__ float of_warp[kWarps];

  float sum = 0;
  for (int first = 0; first < rows.k; first += kThreads) {
    const int column = first + threadIdx.x;
    const int input = column >= rows.k ? -1 : rows.permutation == nullptr ? column : rows.permutation[column];
    float low_rank = 0;
    for (int r0 = 0; r0 < pair.rank; r0 += kRankPiece) {
      const int ranks = min(kRankPiece, pair.rank - r0);
      __syncthreads();
      if (threadIdx.x < ranks) b_piece[threadIdx.x] = b[r0 + threadIdx.x];
      __syncthreads();
      if (input < 0 || input >= pair.inputs) continue;
      for (int r = 0; r < ranks; r++)
        low_rank += b_piece[r] * pair.a[static_cast<size_t>(r0 + r) * pair.inputs + input];
    }
    if (input < 0 || input >= pair.inputs) continue;
    const float w = device::to_float(weight[column]) + pair.scale * low_rank;
    sum += w * w;
  }
  sum = device::warp_sum(sum);
  if (threadIdx.x % device::kWarpSize == 0) of_warp[threadIdx.x / device::kWarpSize] = sum;
  __syncthreads();
  if (threadIdx.x != 0) return;
  sum = 0;
  for (int w = 0; w < kWarps; w++) sum += of_warp[w];
  norms[output] = sum;
}

void launch(const Rows& rows, int32_t count, Dtype dtype, const DoraPair& pair, float* norms, const Stream& stream) {
  if (count == 0) return;
  with_activation_type(dtype, [&](auto element) {
    using T = typename decltype(element)::type;
    squared_norms<T><<<count, kThreads, 0, stream.handle()>>>(rows, pair, norms);
  });
  LORIKEET_CHECK_CUDA(cudaGetLastError());
}

}  // namespace

void dora_norms_cuda(const PackedInt4Weight& weight, int32_t first_output, const DoraPair& pair, void* scratch,
                     float* norms, const Stream& stream) {
  CHECK_LE(first_output + pair.outputs, weight.n);
  const uint64_t tile_bytes = uint64_t{2} * int4::kTileRows * static_cast<uint64_t>(weight.k);
  const auto at_once = static_cast<int32_t>(std::max<uint64_t>(1, kDoraScratchBytes / tile_bytes));
  for (int32_t tile = 0; tile < weight.tiles; tile += at_once) {
    const int32_t tiles = std::min(at_once, weight.tiles - tile);
    dequantize_cuda(weight, Dtype::f16, scratch, tile, tiles, stream);
    const int32_t* permutation = weight.permutation.as<int32_t>();
    const Rows rows = {
        scratch, permutation, weight.k, tile * int4::kTileRows, first_output, weight.paired ? weight.n / 2 : 0};
    launch(rows, tiles * int4::kTileRows, Dtype::f16, pair, norms, stream);
  }
}

void dora_norms_cuda(const void* weight, Dtype dtype, int32_t first_output, const DoraPair& pair, float* norms,
                     const Stream& stream) {
  const auto* first =
      static_cast<const unsigned char*>(weight) + static_cast<size_t>(first_output) * pair.inputs * size_of(dtype);
  launch({first, nullptr, pair.inputs, 0, 0, 0}, pair.outputs, dtype, pair, norms, stream);
}

}  // namespace lorikeet::kernels
