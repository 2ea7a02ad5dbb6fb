// The warps of a block of the int4 product that keeps x (kernels/int4/decode/int4_decode.cuh).
#pragma once

namespace lorikeet::kernels::int4 {

inline constexpr int kDecodeWarps = 16;  // that bring x and stream weights
inline constexpr int kDecodeThreads = kDecodeWarps * 32;

// In front of them, where the product completes the outputs of several tokens by adapters. So many that no other block
// finds room beside.
inline constexpr int kLoraWarps = 8;
inline constexpr int kLoraThreads = kLoraWarps * 32;

// How a product completes its outputs by adapters.
enum class DecodeLora { none, by_own_warps, of_one_token };

constexpr int decode_threads(DecodeLora lora) {
  return kDecodeThreads + (lora == DecodeLora::by_own_warps ? kLoraThreads : 0);
}

}  // namespace lorikeet::kernels::int4
