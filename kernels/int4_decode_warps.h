// The warps of a block of the int4 product that keeps x (kernels/int4_decode.cuh).
#pragma once

namespace lorikeet::kernels::int4 {

inline constexpr int kDecodeWarps = 16;  // that bring x and stream weights
inline constexpr int kDecodeThreads = kDecodeWarps * 32;

// In front of them, where the product completes its outputs by adapters. So many that no other block finds room beside:
// two of them, which would leave that room, were slower.
inline constexpr int kLoraWarps = 8;
inline constexpr int kLoraThreads = kLoraWarps * 32;

}  // namespace lorikeet::kernels::int4
