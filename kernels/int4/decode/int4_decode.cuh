// The kernel of the int4 product for so few tokens that a block keeps x in shared memory. Included by the .cu files
// that instantiate it.
//
// Weights are operand A of the tensor cores (16 outputs), tokens the 8 columns. A group of blocks, one or a cluster of
// two, owns whole tiles; in a cluster each block takes half of k, and so keeps half of x. Each warp takes parts of k of
// a tile in turn and streams them through a ring of its own in shared memory; there is no synchronisation while it
// does. The sums of parts go to the block that finishes the tile, which adds them in the order of k.
//
// At most 64 registers a thread: 512 threads then take half of an SM's, so that a CTA of the kernel behind can start on
// the same SM while this one runs.
#pragma once

#include "kernels/cuda/async_copy.cuh"
#include "kernels/cuda/device_math.cuh"
#include "kernels/cuda/done_counter.cuh"
#include "kernels/int4/base/fragment.cuh"
#include "kernels/int4/base/layout.h"
#include "kernels/int4/base/output.cuh"
#include "kernels/int4/decode/chunk.cuh"
#include "kernels/int4/decode/lora.cuh"
#include "kernels/int4/decode/lora_token.cuh"
#include "kernels/int4/decode/ring.cuh"
#include "kernels/int4/decode/x.cuh"

namespace lorikeet::kernels::int4 {

// y += kUnits units times x. `unit`: this lane's words of the first; x_lane: the address of this lane's column and
// pairs for it.
template <class T, class Format, int kUnits>
__device__ __forceinline__ void add_units(const unsigned char* unit, uint32_t x_lane, int lane, float (&y)[4]) {
  constexpr int kScales = kUnitInputs / Format::kScaleBlock;
  static_assert(kUnits == 1 || kScales == 1);  // scales are applied in the order of k
  const uint32_t words_at = device::shared_address(unit) + lane * 16;
  const int g = lane / 4;
  float sum[kUnits][4];
#pragma unroll
  for (int j = 0; j < kUnitInputs / kSubBlock; j += 2) {
    uint4 words[kUnits];
#pragma unroll
    for (int u = 0; u < kUnits; u++) words[u] = load_shared_16(words_at + u * Format::kBytes + j / 2 * 512);
#pragma unroll
    for (int i = j; i < j + 2; i++) {
      const int scale = kScales == 1 ? 0 : i;
#pragma unroll
      for (int u = 0; u < kUnits; u++) {
        uint32_t a[2][4];
        decode_sub_block<T>(i == j ? words[u].x : words[u].z, i == j ? words[u].y : words[u].w,
                            load_zeros<T, Format>(unit + u * Format::kBytes, scale, g), a);
        const uint4 x = load_shared_16(x_lane + u * kDecodeUnitXBytes + i * 64);
        if (kScales > 1 || i == 0) {
          first_step<T>(sum[u], a[0], x.x, x.y);
        } else {
          next_step<T>(sum[u], a[0], x.x, x.y);
        }
        next_step<T>(sum[u], a[1], x.z, x.w);
        if constexpr (kScales > 1) add_scaled(y, load_scales(unit, scale, g), sum[u]);
      }
    }
  }
  if constexpr (kScales == 1) {
#pragma unroll
    for (int u = 0; u < kUnits; u++) add_scaled(y, load_scales(unit + u * Format::kBytes, 0, g), sum[u]);
  }
}

// Sums into the shared memory of block `owner` of the cluster, at the address that they have there, counted on the
// barrier that all blocks have at the same address.
__device__ __forceinline__ void store_part(uint32_t address, float2 sums, int cluster, int owner, uint32_t barrier) {
#if __CUDA_ARCH__ >= 900
  if (cluster > 1) {
    return device::cluster_store_counted(device::cluster_address(address, owner), sums,
                                         device::cluster_address(barrier, owner));
  }
#endif
  asm volatile("st.shared.v2.f32 [%0], {%1,%2};" ::"r"(address), "f"(sums.x), "f"(sums.y) : "memory");
}

// What a warp does while it streams: its items' sums, from its ring and x, into the shared memory of the blocks that
// finish the tiles. x_lane: the address of this lane's column and pairs for unit 0 of k; all_parts: the barrier that counts the sums.
template <class T, class Format>
__device__ __forceinline__ void stream_items(const DecodeParams& p, const unsigned char* shared, const BlockWork& work,
                                             WeightRing<Format>& ring, uint32_t x_lane, uint32_t base,
                                             uint32_t all_parts, int warp, int lane) {
  const int cluster = 1 << p.cluster_log2;
  const int g = lane / 4;
  const int t = lane % 4;
  uint32_t stage = ring.begin;
  uint32_t barrier = ring.full;
  uint32_t phase = 0;
  for (int item = warp; item < work.items; item += kDecodeWarps) {
    const int tile = item >> work.parts_log2;
    const int part = work.part_of(item);
    int rest = part_begin(p.units, part);
    uint32_t x_unit = x_lane + rest * kDecodeUnitXBytes;
    int before = in_line(ring.weight + static_cast<int64_t>(tile * p.units + rest) * Format::kBytes);
    rest = part_begin(p.units, part + 1) - rest;
    float y[4] = {};
    for (int n; rest > 0; rest -= n) {
      n = min(p.chunk, rest);
      const unsigned char* unit = shared + stage + before;
      before = (before + n * Format::kBytes) & (kCopyLine - 1);
      device::barrier_wait(barrier, phase);
      int u = 0;
      if constexpr (Format::kScaleBlock == kUnitInputs) {
        for (; u + 2 <= n; u += 2) {
          add_units<T, Format, 2>(unit, x_unit, lane, y);
          unit += 2 * Format::kBytes;
          x_unit += 2 * kDecodeUnitXBytes;
        }
      }
      for (; u < n; u++) {
        add_units<T, Format, 1>(unit, x_unit, lane, y);
        unit += Format::kBytes;
        x_unit += kDecodeUnitXBytes;
      }
      __syncwarp();  // all lanes have read the stage
      ring.request(stage, barrier);
      stage += ring.stage_bytes;
      barrier += 8;
      if (stage == ring.end) {
        stage = ring.begin;
        barrier = ring.full;
        phase ^= 1;
      }
    }
    const uint32_t to =
        base + p.parts_offset +
        ((((tile >> p.cluster_log2) * kPartsOfK + part) * p.m + 2 * t) * 8 + g) * static_cast<int>(sizeof(float2));
    const int owner = tile & (cluster - 1);
    if (2 * t < p.m) store_part(to, make_float2(y[0], y[2]), cluster, owner, all_parts);
    if (2 * t + 1 < p.m) store_part(to + 64, make_float2(y[1], y[3]), cluster, owner, all_parts);
  }
}

// The parts of a sum, in the order of k. `part`: the first.
__device__ __forceinline__ float2 sum_parts(const DecodeParams& p, const float2* part) {
  float2 sum = part[0];
#pragma unroll
  for (int i = 1; i < kPartsOfK; i++) {
    const float2 next = part[i * p.m * 8];
    sum.x += next.x;
    sum.y += next.y;
  }
  return sum;
}

// Until the sums of all parts of the block's tiles are in its shared memory.
template <DecodeLora kLora>
__device__ __forceinline__ void wait_for_parts(int cluster, uint32_t all_parts) {
#if __CUDA_ARCH__ >= 900
  if (cluster > 1) device::barrier_wait(all_parts, 0);
#endif
  if (cluster == 1 || kLora == DecodeLora::of_tokens) __syncthreads();
}

// The outputs of one token, which its adapter completes; a thread makes those of rows g and g + 8. sums:
// [tiles][kPartsOfK][8].
template <class T>
__device__ __forceinline__ void finish_token(const DecodeParams& p, const TokenLoraWork<T>& lora, const float2* sums,
                                             uint32_t all_parts) {
  const OwnTiles own = lora.own_tiles();
  wait_for_parts<DecodeLora::of_one_token>(own.stride, all_parts);
  for (int e = threadIdx.x; e < own.count * 8; e += kDecodeThreads) {
    const int slot = e / 8;
    const int g = e % 8;
    const float2 sum = sum_parts(p, sums + slot * kPartsOfK * 8 + g);
    const TokenDelta deltas[2] = {lora.delta(slot, g), lora.delta(slot, g + 8)};
    store_outputs<T>(p.out, own[slot], g, 0, sum.x, sum.y, [&](int half, float value) {
      const TokenDelta& delta = deltas[half];
      return lora::completed(device::to_float(device::from_float<T>(value)), delta.scale, delta.sum) * delta.factor;
    });
  }
}

// The first part of the sums of a token in a tile. sums: [tiles][kPartsOfK][m][8], row g beside row g + 8.
__device__ __forceinline__ const float2* sums_of(const DecodeParams& p, const float2* sums, int slot, int token) {
  return sums + (slot * kPartsOfK * p.m + token) * 8;
}

// The outputs of all tokens; a thread makes those of rows g and g + 8.
template <class T>
__device__ __forceinline__ void finish_tokens(const DecodeParams& p, const OwnTiles& own, const float2* sums,
                                              uint32_t all_parts) {
  wait_for_parts<DecodeLora::none>(own.stride, all_parts);
  const int outputs = own.count * p.m * 8;
  int slot = p.m == 1 ? static_cast<int>(threadIdx.x) / 8 : static_cast<int>(threadIdx.x) / (8 * p.m);
  for (int e = threadIdx.x; e < outputs; e += kDecodeThreads) {
    if (e >= kDecodeThreads) slot = e / (8 * p.m);
    const int column = e - slot * 8 * p.m;  // of the tokens' rows
    const float2 sum = sum_parts(p, sums_of(p, sums, slot, 0) + column);
    store_outputs<T>(p.out, own[slot], column % 8, column / 8, sum.x, sum.y);
  }
}

// The same with adapters: a warp for four tokens of a tile.
template <class T>
__device__ __forceinline__ void complete_tokens(const DecodeParams& p, LoraShared& lora, const OwnTiles& own,
                                                const float2* sums, uint32_t all_parts) {
  constexpr int kTogether = device::kWarpSize / 8;
  static_assert(kMostTokens <= 2 * kTogether);
  wait_for_parts<DecodeLora::of_tokens>(own.stride, all_parts);
  if (p.m == 1) clear_slices(p.lora, static_cast<int>(threadIdx.x), kDecodeThreads);
  const int halves_log2 = p.m > kTogether ? 1 : 0;
  const int g = threadIdx.x % 8;
  for (int i = threadIdx.x / device::kWarpSize; i < own.count << halves_log2; i += kDecodeWarps) {
    const int slot = i >> halves_log2;
    const int token = (i - (slot << halves_log2)) * kTogether + threadIdx.x % device::kWarpSize / 8;
    if (token >= p.m) continue;
    const float2 sum = sum_parts(p, sums_of(p, sums, slot, token) + g);
    const float* of_token = lora.sums(p.lora, p.m) + (slot * p.m + token) * kTileRows;
    store_outputs_with_lora<T>(p.lora, p.out, lora, own[slot], g, token, sum.x, sum.y, of_token);
  }
}

// Brings x of the inputs from unit first_kept on into shared memory, or makes it there of the residual stream, and lets
// the rest of the ring be filled. asked() is called when x has been asked for from where it lies.
template <class T, class Format, DecodeLora kLora, class Asked>
__device__ __forceinline__ void bring_x(const DecodeParams& p, unsigned char* shared, WeightRing<Format>& ring,
                                        uint32_t base, int first_kept, int end_unit, int thread, Asked&& asked) {
  // Behind the loads of x: in front of them, weights would make them wait.
  const auto request_rest = [&] {
    ring.request_stages(p.first_stages, p.stages);
    asked();
  };
  if (kLora == DecodeLora::of_tokens || p.norm.residual == nullptr) {
    if (kLora == DecodeLora::of_tokens && p.lora.x_done != nullptr) {
      device::wait_until_counted(p.lora.x_done, p.lora.x_blocks);
    } else {
      device::wait_for_previous_kernel();
    }
    const int first_k = first_kept * kUnitInputs;
    const int chunks = (end_unit - first_kept) * (kUnitInputs / 8);
    constexpr int kLoads = kLora == DecodeLora::none        ? kXLoads
                           : kLora == DecodeLora::of_tokens ? kFewXLoads
                                                            : kTokenXLoads;
    // Adapters take the inputs in their own order.
    if (kLora != DecodeLora::none || p.permutation == nullptr) {
      return stage_x<T, kLoads, false>(p, shared, thread, first_k, chunks, request_rest);
    }
    return stage_x<T, kFewXLoads, true>(p, shared, thread, first_k, chunks, request_rest);
  }
  NormWeight norm_weight;
  load_norm_weight(p, thread, norm_weight);
  float* squares = reinterpret_cast<float*>(shared + p.squares_offset);
  const int end_k = end_unit * kUnitInputs;
  ring.request_stages(p.first_stages, p.stages);  // begins long before x is there, and has no registers to spare
  constexpr int kRows = kLora == DecodeLora::of_one_token ? 1 : kNormRows;
  stage_normed_x<T, kRows>(p, thread, norm_weight, base, squares, first_kept * kUnitInputs, end_k);
}

#if __CUDA_ARCH__ >= 900
inline constexpr int kDecodeBlocks = 2;  // one of another kernel, say, beside one of this
#else
inline constexpr int kDecodeBlocks = 1;
#endif

// Few tokens (shape.cu says which shapes): each warp streams its own items through a ring and multiplies.
//   grid     shape.blocks, alone or in clusters of 2, at most one CTA a multiprocessor; 512 threads, 60 to 64 registers, so that
//            a CTA of the next kernel finds room beside
//   shared   shape.bytes: x, a ring of shape.depth stages per warp, sums
//   device   8.0; clusters and room for a second CTA from 9.0 on
//   waits    for the kernel in front, with the first stages already requested; with LoRA of one token for the other CTAs of
//            this product (kernels/cuda/WAITING.md, way 3), with that of several for x's writer by its counter (way 2), and
//            for the kernel in front, which makes A x, in the end
//   floor    at one token 61 % (qkv), 53 % (o), 77 % (gate_up), 70 % (down) of the read bandwidth
template <class T, class Format, DecodeLora kLora>
__global__ void __launch_bounds__(kDecodeThreads, kDecodeBlocks) decode(const __grid_constant__ DecodeParams p) {
  constexpr bool kTokens = kLora == DecodeLora::of_tokens;
  constexpr bool kOneToken = kLora == DecodeLora::of_one_token;
  extern __shared__ __align__(128) unsigned char shared[];
  const uint32_t base = device::shared_address(shared);
  const int thread = static_cast<int>(threadIdx.x);
  const int warp = __shfl_sync(device::kFullWarp, thread >> 5, 0);
  const int lane = threadIdx.x % device::kWarpSize;
  const int cluster = 1 << p.cluster_log2;
  const uint32_t all_parts = base + p.barriers_offset;  // barrier of the sums that the block finishes
  TokensDescription tokens;
  const bool describes = kTokens && warp == kDecodeWarps - 1;
  if (describes) tokens.ask_tables(p.lora, p.m);
  const BlockWork work(p);
  const OwnTiles own{work.first_tile + work.rank, cluster, work.owned(cluster, p.cluster_log2)};
  const int first_kept = kOneToken ? slice_aligned(work.first_unit) : work.first_unit;  // of the units whose x is kept
  const LoraShare share{first_kept, first_kept / kSliceUnits,
                        work.rank == cluster - 1 ? p.lora.slice_count : work.end_unit() / kSliceUnits, work.group,
                        static_cast<int>(gridDim.x) >> p.cluster_log2};
  TokenLoraWork<T> token_lora(p.lora, p.out, shared, share, own, work.items, warp);
  if constexpr (kOneToken) token_lora.ask_tables();
  WeightRing<Format> ring(p, work, base, all_parts + 8, warp, lane);
  if (lane == 0) {
    ring.init_barriers();
    if constexpr (kOneToken) token_lora.init_barriers();
#if __CUDA_ARCH__ >= 900
    if (warp == 0 && cluster > 1) {
      device::barrier_init(all_parts, 1 + (kOneToken ? token_lora.summing() : 0));
      device::barrier_expect(all_parts, own.count * kPartsOfK * p.m * kTileRows * static_cast<int>(sizeof(float)));
    }
    device::fence_barrier_init();
#endif
  }
  __syncwarp();
  // weights are read-only: they may be read before the kernel in front has ended.
  ring.enter_first();
  ring.request_stages(0, p.first_stages);
  if (describes) tokens.ask_entries(p.lora);
  if constexpr (kOneToken) token_lora.ask_entry();
  device::allow_next_kernel();
#if __CUDA_ARCH__ >= 900
  __syncwarp();
  if (cluster > 1) device::cluster_arrive_relaxed();
#endif

  auto& lora = *reinterpret_cast<LoraShared*>(shared + p.lora.offset);
  const TokensLoraWork<T> tokens_lora(p.lora, p.out, shared, own, work.items, p.m, warp);
  if constexpr (kOneToken) token_lora.prepare(base);
  bring_x<T, Format, kLora>(p, shared, ring, base, first_kept, work.end_unit(), thread, [&] {
    if constexpr (kTokens) tokens_lora.describe(tokens);
  });
  __syncthreads();
#if __CUDA_ARCH__ >= 900
  if (cluster > 1) device::cluster_wait();  // the neighbour has started: it may be sent sums
#endif
  if constexpr (kOneToken) token_lora.make_slices(base);
  if constexpr (kTokens) tokens_lora.stage_b();
  // Columns without a token repeat the last token; their results are not used.
  const uint32_t x_lane =
      base + min(lane / 4, p.m - 1) * p.x_row_bytes + lane % 4 * 16 - first_kept * kDecodeUnitXBytes;
  stream_items<T, Format>(p, shared, work, ring, x_lane, base, all_parts, warp, lane);
  if constexpr (kTokens) tokens_lora.make_sums();
  const auto* sums = reinterpret_cast<const float2*>(shared + p.parts_offset);  // [own.count][kPartsOfK][m][8]
  if constexpr (kOneToken) {
    token_lora.gather_v();
    token_lora.make_sums(all_parts);
    finish_token<T>(p, token_lora, sums, all_parts);
  } else if constexpr (kTokens) {
    complete_tokens<T>(p, lora, own, sums, all_parts);
  } else {
    finish_tokens<T>(p, own, sums, all_parts);
  }
  if constexpr (kTokens) device::signal_done(p.lora.done);
}

}  // namespace lorikeet::kernels::int4
