// Packs int4 weights into the device layout, and unpacks them into plain 16-bit matrices.
#include <algorithm>
#include <cmath>
#include <vector>

#include "kernels/base/cuda_check.h"
#include "kernels/base/rounding.h"
#include "kernels/cuda/device_math.cuh"
#include "kernels/cuda/element_dispatch.cuh"
#include "kernels/int4/base/layout.h"
#include "kernels/int4/base/packed_weight.h"

namespace lorikeet::kernels {
namespace {

using int4::kSubBlock;
using int4::kTileRows;
using int4::kUnitInputs;

constexpr int kThreads = 256;
constexpr int32_t kSymmetricZero = 8;
constexpr int kScaleTopExponent = 15;  // the largest stored scale lies in [2^14, 2^15)

unsigned blocks_for(int64_t threads) {
  return static_cast<unsigned>((threads + kThreads - 1) / kThreads);
}

struct PackSource {
  const uint8_t* q;       // [n, k / 2]
  const int32_t* run_of;  // [k / 32]
  const float* scale;     // [runs, n]
  const uint8_t* zero;    // [runs, n]
  int32_t n, k;
  int32_t first_row;  // packed row of output 0
  bool paired;        // output i goes to row first_row + i / 8 * 16 + i % 8
};

struct PackTarget {
  uint8_t* data;
  int32_t units, scale_block;
  bool asymmetric;
  float inverse_factor;
};

// One thread: 32 inputs of one output. When weights are loaded.
//   grid     outputs * inputs / 32 / 256, 256 threads, 30 registers, no shared memory
__global__ void __launch_bounds__(kThreads) pack_rows(PackSource source, PackTarget target) {
  const int sub_blocks = source.k / kSubBlock;
  const int64_t thread = static_cast<int64_t>(blockIdx.x) * kThreads + threadIdx.x;
  if (thread >= static_cast<int64_t>(source.n) * sub_blocks) return;
  const int output = static_cast<int>(thread / sub_blocks);
  const int block = static_cast<int>(thread % sub_blocks);
  const int row = source.first_row + (source.paired ? output / 8 * kTileRows + output % 8 : output);
  const int unit = block / (kUnitInputs / kSubBlock);
  const int j = block % (kUnitInputs / kSubBlock);
  const int g = row % 8;
  const int half = row / 8 % 2;
  uint8_t* base = target.data + (static_cast<int64_t>(row / kTileRows) * target.units + unit) *
                                    int4::unit_bytes(target.scale_block, target.asymmetric);

  const uint8_t* q = source.q + static_cast<int64_t>(output) * (source.k / 2) + block * (kSubBlock / 2);
  auto nibble = [&](int k) { return q[k / 2] >> (k % 2 * 4) & 15; };
#pragma unroll
  for (int t = 0; t < 4; t++) {
#pragma unroll
    for (int h = 0; h < 2; h++) {
#pragma unroll
      for (int e = 0; e < 2; e++) {
        const int k = 8 * h + 2 * t + e;
        base[j / 2 * 512 + (g * 4 + t) * 16 + j % 2 * 8 + h * 4 + 2 * e + half] =
            static_cast<uint8_t>(nibble(k) | nibble(k + 16) << 4);
      }
    }
  }
  if (block * kSubBlock % target.scale_block != 0) return;
  const int scale_index = j * kSubBlock / target.scale_block;
  const int64_t from = static_cast<int64_t>(source.run_of[block]) * source.n + output;
  uint8_t* scales = base + int4::kNibbleBytes;
  reinterpret_cast<__half*>(scales)[scale_index * kTileRows + g * 2 + half] =
      __float2half_rn(source.scale[from] * target.inverse_factor);
  if (target.asymmetric) {
    scales[int4::scale_bytes(target.scale_block) + scale_index * kTileRows + g * 2 + half] = source.zero[from];
  }
}

__device__ uint32_t hash(uint64_t x) {
  x ^= x >> 33;
  x *= 0xff51afd7ed558ccdULL;
  x ^= x >> 33;
  x *= 0xc4ceb9fe1a85ec53ULL;
  return static_cast<uint32_t>(x ^ x >> 33);
}

// One thread: four bytes of a unit. Scales lie in [0.75, 1.25) * middle. For benches.
//   grid     bytes / 4 / 256, 256 threads, 18 registers, no shared memory
__global__ void __launch_bounds__(kThreads)
    fill_random(uint8_t* data, int64_t words, int32_t words_of_unit, float middle, uint64_t seed) {
  const int64_t i = static_cast<int64_t>(blockIdx.x) * kThreads + threadIdx.x;
  if (i >= words) return;
  uint32_t bits = hash(static_cast<uint64_t>(i) + (seed << 40));
  if (i % words_of_unit >= int4::kNibbleBytes / 4) {
    auto scale = [&](uint32_t sixteen) { return middle * (0.75F + static_cast<float>(sixteen) / 131072.0F); };
    bits = device::pack<__half>(scale(bits & 0xffff), scale(bits >> 16));
  }
  reinterpret_cast<uint32_t*>(data)[i] = bits;
}

// One warp: one unit of one tile. For products of many tokens on devices without a kernel of their own.
//   grid     units / 8, 256 threads, 40 registers, no shared memory
template <class T>
__global__ void __launch_bounds__(kThreads) unpack(const uint8_t* data, int32_t units, int32_t scale_block,
                                                   bool asymmetric, float factor, T* out, int32_t k, int64_t total) {
  const int64_t warp = (static_cast<int64_t>(blockIdx.x) * kThreads + threadIdx.x) / device::kWarpSize;
  if (warp >= total) return;
  const int lane = threadIdx.x % device::kWarpSize;
  const int g = lane / 4;
  const int t = lane % 4;
  const uint8_t* unit = data + warp * int4::unit_bytes(scale_block, asymmetric);
  const int first_k = static_cast<int>(warp % units) * kUnitInputs;
  T* rows[2];
  for (int half = 0; half < 2; half++) rows[half] = out + (warp / units * kTileRows + g + 8 * half) * k;
  for (int j = 0; j < kUnitInputs / kSubBlock && first_k + j * kSubBlock < k; j++) {
    const int scale_index = j * kSubBlock / scale_block * kTileRows + g * 2;
    const auto* scales = reinterpret_cast<const __half*>(unit + int4::kNibbleBytes) + scale_index;
    const uint8_t* zeros = unit + int4::kNibbleBytes + int4::scale_bytes(scale_block) + scale_index;
    const uint2 words = *reinterpret_cast<const uint2*>(unit + j / 2 * 512 + lane * 16 + j % 2 * 8);
    for (int half = 0; half < 2; half++) {
      const float scale = __half2float(scales[half]) * factor;
      const float zero = asymmetric ? static_cast<float>(zeros[half]) : static_cast<float>(kSymmetricZero);
      for (int h = 0; h < 2; h++) {
        for (int s = 0; s < 2; s++) {
          const uint32_t word = (h == 0 ? words.x : words.y) >> (8 * half + 4 * s);
          const int column = first_k + j * kSubBlock + 16 * s + 8 * h + 2 * t;
          *reinterpret_cast<uint32_t*>(rows[half] + column) = device::pack<T>(
              scale * (static_cast<float>(word & 15) - zero), scale * (static_cast<float>(word >> 16 & 15) - zero));
        }
      }
    }
  }
}

// The power of two that brings the largest scale into the top of fp16's range.
float factor_for(float largest) {
  if (!(largest > 0) || !std::isfinite(largest)) return 1;
  int exponent = 0;
  std::frexp(largest, &exponent);
  return std::ldexp(1.0F, exponent - kScaleTopExponent);
}

template <class T>
Result<DeviceBuffer> upload(const std::vector<T>& values, std::string_view purpose, const Stream& stream) {
  Result<DeviceBuffer> buffer = DeviceBuffer::allocate(values.size() * sizeof(T), purpose);
  if (buffer && !values.empty()) copy_to_device(buffer->data(), values.data(), values.size() * sizeof(T), stream);
  return buffer;
}

// Units, scale layout and empty (zeroed) memory for `rows` packed rows.
Result<PackedInt4Weight> make_empty(std::span<const Int4Weight* const> parts, int32_t packed_rows,
                                    const Stream& stream) {
  const Int4Weight& first = *parts.front();
  PackedInt4Weight packed;
  packed.k = first.k;
  packed.x_size = first.x_size;
  packed.tiles = packed_rows / kTileRows;
  packed.units = (first.k + kUnitInputs - 1) / kUnitInputs;
  packed.scale_block = kUnitInputs;
  float largest = 0;
  for (const Int4Weight* part : parts) {
    CHECK_EQ(part->k % kSubBlock, 0);
    if (part->k != first.k || part->x_size != first.x_size || part->run_begin != first.run_begin ||
        part->permutation != first.permutation) {
      return fail("int4 weights of {}x{} and {}x{} differ in their groups: they cannot be one product", first.n,
                  first.k, part->n, part->k);
    }
    packed.n += part->n;
    for (int r = 0; r < part->runs(); r++) {
      if (part->run_begin[static_cast<size_t>(r)] % kUnitInputs != 0) packed.scale_block = kSubBlock;
    }
    for (const uint8_t zero : part->zero) packed.asymmetric |= zero != kSymmetricZero;
    for (const float scale : part->scale) largest = std::max(largest, std::abs(scale));
  }
  packed.scale_factor = factor_for(largest);
  const uint64_t bytes = packed.data_bytes();
  Result<DeviceBuffer> data = DeviceBuffer::allocate(bytes, "int4 weights");
  if (!data) return tl::unexpected(data.error());
  packed.data = std::move(*data);
  fill_bytes(packed.data.data(), 0, bytes, stream);
  Result<DeviceBuffer> permutation = upload(first.permutation, "the input order of int4 weights", stream);
  if (!permutation) return tl::unexpected(permutation.error());
  packed.permutation = std::move(*permutation);
  return packed;
}

Result<void> pack_part(const Int4Weight& part, int32_t first_row, bool paired, const PackedInt4Weight& packed,
                       const Stream& stream) {
  if (part.n == 0) return {};
  std::vector<int32_t> run_of(static_cast<size_t>(part.k / kSubBlock));
  for (int r = 0; r < part.runs(); r++) {
    for (int32_t k = part.run_begin[static_cast<size_t>(r)]; k < part.run_begin[static_cast<size_t>(r) + 1];
         k += kSubBlock) {
      run_of[static_cast<size_t>(k / kSubBlock)] = r;
    }
  }
  constexpr std::string_view kPurpose = "an int4 weight on its way to the device";
  Result<DeviceBuffer> q = upload(part.q, kPurpose, stream);
  if (!q) return tl::unexpected(q.error());
  Result<DeviceBuffer> runs = upload(run_of, kPurpose, stream);
  if (!runs) return tl::unexpected(runs.error());
  Result<DeviceBuffer> scale = upload(part.scale, kPurpose, stream);
  if (!scale) return tl::unexpected(scale.error());
  Result<DeviceBuffer> zero = upload(part.zero, kPurpose, stream);
  if (!zero) return tl::unexpected(zero.error());
  const PackSource source{q->as<uint8_t>(),
                          runs->as<int32_t>(),
                          scale->as<float>(),
                          zero->as<uint8_t>(),
                          part.n,
                          part.k,
                          first_row,
                          paired};
  const PackTarget target{packed.data.as<uint8_t>(), packed.units, packed.scale_block, packed.asymmetric,
                          1 / packed.scale_factor};
  pack_rows<<<blocks_for(static_cast<int64_t>(part.n) * (part.k / kSubBlock)), kThreads, 0, stream.handle()>>>(source,
                                                                                                               target);
  LORIKEET_CHECK_CUDA(cudaGetLastError());
  stream.synchronize();  // the buffers above end here
  return {};
}

}  // namespace

int32_t PackedInt4Weight::unit_bytes() const {
  return int4::unit_bytes(scale_block, asymmetric);
}
uint64_t PackedInt4Weight::data_bytes() const {
  const uint64_t bytes =
      static_cast<uint64_t>(tiles) * static_cast<uint64_t>(units) * static_cast<uint64_t>(unit_bytes());
  return round_up<uint64_t>(bytes, int4::kL2Line);
}

Result<PackedInt4Weight> PackedInt4Weight::pack(std::span<const Int4Weight* const> parts, const Stream& stream) {
  CHECK(!parts.empty());
  int32_t n = 0;
  for (const Int4Weight* part : parts) n += part->n;
  Result<PackedInt4Weight> packed = make_empty(parts, round_up(n, kTileRows), stream);
  if (!packed) return packed;
  int32_t row = 0;
  for (const Int4Weight* part : parts) {
    if (Result<void> done = pack_part(*part, row, false, *packed, stream); !done) return tl::unexpected(done.error());
    row += part->n;
  }
  return packed;
}

Result<PackedInt4Weight> PackedInt4Weight::pack_pair(const Int4Weight& gate, const Int4Weight& up,
                                                     const Stream& stream) {
  if (gate.n != up.n) return fail("gate has {} outputs, up has {}: they are no pair", gate.n, up.n);
  const Int4Weight* parts[] = {&gate, &up};
  Result<PackedInt4Weight> packed = make_empty(parts, round_up(gate.n, 8) * 2, stream);
  if (!packed) return packed;
  packed->paired = true;
  for (int i = 0; i < 2; i++) {
    if (Result<void> done = pack_part(*parts[i], 8 * i, true, *packed, stream); !done) {
      return tl::unexpected(done.error());
    }
  }
  return packed;
}

Result<PackedInt4Weight> PackedInt4Weight::random(int32_t n, int32_t k, bool paired, uint64_t seed,
                                                  const Stream& stream) {
  constexpr float kNibbleDeviation = 4.64F;  // of q - 8, q uniform over 0..15, about 0
  PackedInt4Weight packed;
  packed.n = n;
  packed.k = k;
  packed.x_size = k;
  packed.paired = paired;
  packed.tiles = paired ? round_up(n / 2, 8) / 8 : round_up(n, kTileRows) / kTileRows;
  packed.units = (k + kUnitInputs - 1) / kUnitInputs;
  packed.scale_block = kUnitInputs;
  const float scale = 1.0F / (kNibbleDeviation * std::sqrt(static_cast<float>(k)));
  packed.scale_factor = factor_for(1.25F * scale);
  const auto bytes = static_cast<int64_t>(packed.data_bytes());
  Result<DeviceBuffer> data = DeviceBuffer::allocate(static_cast<uint64_t>(bytes), "int4 weights");
  if (!data) return tl::unexpected(data.error());
  packed.data = std::move(*data);
  fill_random<<<blocks_for(bytes / 4), kThreads, 0, stream.handle()>>>(
      packed.data.as<uint8_t>(), bytes / 4, packed.unit_bytes() / 4, scale / packed.scale_factor, seed);
  LORIKEET_CHECK_CUDA(cudaGetLastError());
  return packed;
}

void dequantize_cuda(const PackedInt4Weight& weight, Dtype dtype, void* out, int32_t first_tile, int32_t tiles,
                     const Stream& stream) {
  CHECK_LE(first_tile + tiles, weight.tiles);
  const int64_t total = static_cast<int64_t>(tiles) * weight.units;
  if (total == 0) return;
  const uint8_t* data =
      weight.data.as<uint8_t>() + static_cast<int64_t>(first_tile) * weight.units * weight.unit_bytes();
  with_activation_type(dtype, [&](auto element) {
    using T = typename decltype(element)::type;
    unpack<T><<<blocks_for(total * device::kWarpSize), kThreads, 0, stream.handle()>>>(
        data, weight.units, weight.scale_block, weight.asymmetric, weight.scale_factor, static_cast<T*>(out), weight.k,
        total);
  });
  LORIKEET_CHECK_CUDA(cudaGetLastError());
}

}  // namespace lorikeet::kernels
