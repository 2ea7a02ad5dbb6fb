// The noise of sampling: a pure function of (seed, position, token), so that neither the batch nor the device changes
// which random number a token gets. Philox4x32-10: Salmon, Moraes, Dror, Shaw, "Parallel random numbers: as easy as 1,
// 2, 3", SC11. The functions are constexpr so that device code may call them too.
#pragma once

#include <cstdint>

namespace lorikeet::kernels {

struct PhiloxBlock {
  uint32_t word[4];
};

constexpr PhiloxBlock philox4x32_10(PhiloxBlock counter, uint32_t key0, uint32_t key1) {
  for (int round = 0; round < 10; round++) {
    const uint64_t product0 = uint64_t{0xD2511F53} * counter.word[0];
    const uint64_t product1 = uint64_t{0xCD9E8D57} * counter.word[2];
    counter = {{static_cast<uint32_t>(product1 >> 32) ^ counter.word[1] ^ key0, static_cast<uint32_t>(product1),
                static_cast<uint32_t>(product0 >> 32) ^ counter.word[3] ^ key1, static_cast<uint32_t>(product0)}};
    key0 += 0x9E3779B9U;
    key1 += 0xBB67AE85U;
  }
  return counter;
}

// 32 random bits for drawing `token_id` as the token at absolute position `position`: key = seed, counter = (position,
// id).
constexpr uint32_t noise_bits(uint64_t seed, int32_t position, int32_t token_id) {
  const PhiloxBlock counter = {{static_cast<uint32_t>(position), static_cast<uint32_t>(token_id), 0, 0}};
  return philox4x32_10(counter, static_cast<uint32_t>(seed), static_cast<uint32_t>(seed >> 32)).word[0];
}

// A uniform number in (0, 1), fine near 0. With E = -log1p(-u) exponential, argmax of p / E draws token i with
// probability p_i; in logarithms: argmax of logit / temperature - log(E).
constexpr float noise_uniform(uint32_t bits) {
  const float u = (static_cast<float>(bits) + 0.5F) * 0x1p-32F;
  return u < 1.0F ? u : 0x1.fffffep-1F;
}

}  // namespace lorikeet::kernels
