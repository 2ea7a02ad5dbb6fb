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

// a * b. On the device it is named: nvcc makes a product of 64 bits from the other form, with sums of zeros.
constexpr uint64_t wide_product(uint32_t a, uint32_t b) {
#ifdef __CUDA_ARCH__
  uint64_t product;
  asm("mul.wide.u32 %0, %1, %2;" : "=l"(product) : "r"(a), "r"(b));
  return product;
#else
  return uint64_t{a} * b;
#endif
}

// noise_bits() of the tokens of one row: what the first rounds make of seed and position alone is made once, and what the
// last two make of words that nobody reads is left out. 15 products in place of 20.
class RowNoise {
 public:
  constexpr RowNoise(uint64_t seed, int32_t position)
      : key0_(static_cast<uint32_t>(seed)), key1_(static_cast<uint32_t>(seed >> 32)) {
    const uint64_t of_position = wide_product(kFactor0, static_cast<uint32_t>(position));
    const uint64_t second = wide_product(kFactor1, high(of_position) ^ key1_);
    const uint64_t third = wide_product(kFactor0, high(second) ^ key0(1));
    second_ = static_cast<uint32_t>(of_position) ^ key1(1);
    third0_ = static_cast<uint32_t>(second) ^ key0(2);
    third1_ = high(third) ^ key1(2);
    fourth_ = static_cast<uint32_t>(third) ^ key1(3);
  }

  constexpr uint32_t bits(int32_t token_id) const {
    const uint64_t second = wide_product(kFactor0, static_cast<uint32_t>(token_id) ^ key0_);
    const uint64_t third = wide_product(kFactor1, high(second) ^ second_);
    // Words before the fourth round; the last of them is in fourth_.
    uint32_t word0 = high(third) ^ third0_;
    uint32_t word1 = static_cast<uint32_t>(third);
    uint32_t word2 = static_cast<uint32_t>(second) ^ third1_;
    uint32_t word3 = 0;
    for (uint32_t round = 3; round < 8; round++) {
      const uint64_t product0 = wide_product(kFactor0, word0);
      const uint64_t product1 = wide_product(kFactor1, word2);
      word0 = high(product1) ^ word1 ^ key0(round);
      word1 = static_cast<uint32_t>(product1);
      word2 = high(product0) ^ (round == 3 ? fourth_ : word3 ^ key1(round));
      word3 = static_cast<uint32_t>(product0);
    }
    const uint32_t last = high(wide_product(kFactor0, word0)) ^ word3 ^ key1(8);
    return high(wide_product(kFactor1, last)) ^ kFactor1 * word2 ^ key0(9);
  }

 private:
  static constexpr uint32_t kFactor0 = 0xD2511F53;
  static constexpr uint32_t kFactor1 = 0xCD9E8D57;

  static constexpr uint32_t high(uint64_t x) { return static_cast<uint32_t>(x >> 32); }
  constexpr uint32_t key0(uint32_t round) const { return key0_ + round * 0x9E3779B9U; }
  constexpr uint32_t key1(uint32_t round) const { return key1_ + round * 0xBB67AE85U; }

  uint32_t key0_, key1_;
  uint32_t second_ = 0, third0_ = 0, third1_ = 0, fourth_ = 0;  // what the token's part is joined with in these rounds
};

// A uniform number in (0, 1), fine near 0. With E = -log1p(-u) exponential, argmax of p / E draws token i with
// probability p_i; in logarithms: argmax of logit / temperature - log(E).
constexpr float noise_uniform(uint32_t bits) {
  const float u = (static_cast<float>(bits) + 0.5F) * 0x1p-32F;
  return u < 1.0F ? u : 0x1.fffffep-1F;
}

}  // namespace lorikeet::kernels
