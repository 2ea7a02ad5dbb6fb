#include "kernels/int4/int8_inputs.h"

#include <algorithm>
#include <bit>
#include <cmath>

namespace lorikeet::kernels {
namespace {

// Sixteen inputs are eight bytes of nibbles: those of even places in the low halves.
constexpr int32_t kSegment = 16;

// Which segments of a block are in its vectors, eight bytes of each: of 128 inputs the even places in vectors 0 and 2, of
// 64 in vector 0, of 32 in the first half of the one that there is. The odd places follow.
constexpr int32_t kSegments128[] = {0, 4, 2, 6, 1, 5, 3, 7};

// The bytes of a block, and the group that each lane belongs to.
void lay_out(const int8_t* q, int32_t block, int8_t* out, int32_t* group) {
  const int32_t half = block == 32 ? 16 : 32;  // from the even places to the odd ones
  for (int32_t at = 0; at < block / kSegment; ++at) {
    const int32_t segment = block == 128 ? kSegments128[at] : at;
    int8_t* even = out + at * 8 + at / 4 * 32;  // vectors of even places are every second one
    for (int32_t i = 0; i < 8; ++i) {
      even[i] = q[segment * kSegment + 2 * i];
      even[half + i] = q[segment * kSegment + 2 * i + 1];
    }
    for (int32_t lane = 2 * (at % 4); lane < 2 * (at % 4) + 2; ++lane) group[lane] = segment / 2;
  }
  if (block == 32) std::fill_n(group, Int8Inputs::kLanes, 0);
}

}  // namespace

float round_to_int8(const float* x, int8_t* q) {
  float tops[8] = {};  // side by side, as compilers keep the order of one
  for (int32_t i = 0; i < kInt8Group; ++i) {
    const float magnitude = std::abs(x[i]);
    tops[i % 8] = magnitude > tops[i % 8] ? magnitude : tops[i % 8];
  }
  const float largest = *std::ranges::max_element(tops);
  const float inverse = largest > 0 ? 127 / largest : 0;
  // Beside 1.5 * 2^23 a float has no room for fractions: the addition rounds, and the last bits are the integer.
  constexpr float kNoFractions = 12582912;
  for (int32_t i = 0; i < kInt8Group; ++i) {
    q[i] = static_cast<int8_t>(std::bit_cast<int32_t>(x[i] * inverse + kNoFractions) -
                               std::bit_cast<int32_t>(kNoFractions));
  }
  return largest / 127;
}

int32_t Int8Inputs::blocks_of(const Int4View& weight) {
  int32_t blocks = 0;
  for (int32_t run = 0; run < weight.runs(); ++run) {
    const int32_t size = weight.run_begin[static_cast<size_t>(run) + 1] - weight.run_begin[static_cast<size_t>(run)];
    blocks += size / 128 + size % 128 / 64 + size % 64 / 32;
  }
  return blocks;
}

int32_t Int8Inputs::row_size(const Int4View& weight) {
  return weight.k / 4 + kLanes * (blocks_of(weight) + weight.runs());
}

void Int8Inputs::prepare(const Int4View& weight, const float* x, float* row) {
  auto* bytes = reinterpret_cast<int8_t*>(row);
  float* scales = row + weight.k / 4;
  float* sums = scales + static_cast<int64_t>(kLanes) * blocks_of(weight);
  for (int32_t run = 0; run < weight.runs(); ++run, sums += kLanes) {
    std::fill_n(sums, kLanes, 0.0F);
    const int32_t end = weight.run_begin[static_cast<size_t>(run) + 1];
    for (int32_t k = weight.run_begin[static_cast<size_t>(run)]; k < end; scales += kLanes) {
      const int32_t block = block_of(end - k);
      int8_t q[128];
      float of_group[4];
      for (int32_t g = 0; g < block / kInt8Group; ++g) {
        of_group[g] = round_to_int8(x + k + g * kInt8Group, q + g * kInt8Group);
      }
      int32_t group[kLanes] = {}, lane_sums[kLanes] = {};
      lay_out(q, block, bytes + k, group);
      for (int32_t i = 0; i < block; ++i) lane_sums[i % 32 / 4] += bytes[k + i];
      for (int32_t lane = 0; lane < kLanes; ++lane) {
        scales[lane] = of_group[group[lane]];
        sums[lane] += scales[lane] * static_cast<float>(lane_sums[lane]);
      }
      k += block;
    }
  }
}

}  // namespace lorikeet::kernels
