// What both kernels for many tokens on Hopper (kernels/int4/prefill/prefill.cuh, prefill_pairs.cuh) have in shared memory
// and make operands of. Included by .cu files only.
#pragma once

#include "kernels/int4/base/fragment.cuh"
#include "kernels/int4/base/layout.h"
#include "kernels/int4/base/tensor_copies.cuh"
#include "kernels/int4/prefill/pair_scale.cuh"
#include "kernels/int4/prefill/prefill_join.cuh"
#include "kernels/int4/prefill/prefill_walk.h"

namespace lorikeet::kernels::int4 {

inline constexpr int kGroupWarps = 4;
inline constexpr int kPrefillThreads = kConsumers + kGroupWarps * device::kWarpSize;
inline constexpr int kMostStages = 6;
// Of a thread of those that compute and of the group that requests, which divide what the launch brought
// (tests/kernels/int4/launch_registers.cuh).
inline constexpr int kPrefillComputingRegisters = 112;
inline constexpr int kPrefillFillingRegisters = 32;

// A unit of the inputs of a block's tiles and of kColumns tokens.
template <class Format, int kColumns, int kTiles>
struct PrefillStage {
  static constexpr int kBox = kColumns * kBoxInputs * 2;
  static constexpr int kX = 2 * kBox;
  static constexpr int kWeights = kTiles * Format::kBytes;
  static constexpr int kBytes = (kX + kWeights + kBoxAlignment - 1) / kBoxAlignment * kBoxAlignment;
  static constexpr int kFit = ((227 << 10) - kBoxAlignment - 256) / kBytes;
  static constexpr int kStages = kFit < kMostStages ? kFit : kMostStages;
  static constexpr int kSharedBytes = kStages * kBytes + kBoxAlignment;
};

#if defined(__CUDA_ARCH_FEAT_SM90_ALL)

// A stage of the ring and how often it was used, modulo 2.
template <int kStages>
struct RingPlace {
  int stage = 0;
  uint32_t phase = 0;
  __device__ __forceinline__ void advance() {
    stage++;
    if (stage < kStages) return;
    stage = 0;
    phase ^= 1;
  }
};

__device__ __forceinline__ uint32_t load_shared_4(uint32_t address) {
  uint32_t v;
  asm volatile("ld.shared.u32 %0, [%1];" : "=r"(v) : "r"(address));
  return v;
}
__device__ __forceinline__ uint32_t load_shared_2(uint32_t address) {
  uint16_t v;
  asm volatile("ld.shared.u16 %0, [%1];" : "=h"(v) : "r"(address));
  return v;
}

// What a lane takes of a unit of its tile: all nibbles, and the scales and zeros of outputs g and g + 8.
template <class Format>
struct UnitWords {
  static constexpr int kScales = kUnitInputs / Format::kScaleBlock;
  uint4 nibbles[2];
  uint32_t scales[kScales];
  uint32_t zeros[kScales] = {};

  // `at`: the lane's first nibbles, `scales_at`: its first scales.
  __device__ __forceinline__ UnitWords(uint32_t at, uint32_t scales_at, uint32_t zeros_at) {
    nibbles[0] = load_shared_16(at);
    nibbles[1] = load_shared_16(at + kNibbleBytes / 2);
#pragma unroll
    for (int i = 0; i < kScales; i++) {
      scales[i] = load_shared_4(scales_at + i * 32);
      if constexpr (Format::kAsymmetric) zeros[i] = load_shared_2(zeros_at + i * 16);
    }
  }
};

// Operands A of sub-block j's two steps.
template <class T, class Format>
__device__ __forceinline__ void decode_scaled(const UnitWords<Format>& words, int j, uint32_t (&a0)[4],
                                              uint32_t (&a1)[4]) {
  const int scale = j * kSubBlock / Format::kScaleBlock;
  const uint4& nibbles = words.nibbles[j / 2];
  const PairScale<T> scales(words.scales[scale]);
  uint32_t a[2][4];
  decode_sub_block<T>(j % 2 == 0 ? nibbles.x : nibbles.z, j % 2 == 0 ? nibbles.y : nibbles.w,
                      zeros_of<T, Format>(words.zeros[scale]), a);
#pragma unroll
  for (int i = 0; i < 4; i++) {
    a0[i] = scales.apply(a[0][i], i % 2);
    a1[i] = scales.apply(a[1][i], i % 2);
  }
}

#endif

using PrefillKernel = void (*)(PrefillParams, CUtensorMap, CUtensorMap);
struct PrefillVariant {
  PrefillKernel kernel;
  int shared_bytes;
};

}  // namespace lorikeet::kernels::int4
