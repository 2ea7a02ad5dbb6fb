// The warps of a block of the int4 product that keeps x (kernels/int4/decode/int4_decode.cuh).
#pragma once

namespace lorikeet::kernels::int4 {

inline constexpr int kDecodeWarps = 16;  // that bring x and stream weights
inline constexpr int kDecodeThreads = kDecodeWarps * 32;

// How a product completes its outputs by adapters.
enum class DecodeLora { none, of_tokens, of_one_token };

}  // namespace lorikeet::kernels::int4
