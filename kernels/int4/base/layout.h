// The packed int4 weight on the device.
//
// The weight is cut into tiles of 16 outputs and units of 128 inputs. A unit is one block of bytes: 1,024 of nibbles in
// the order in which the lanes of a warp need them as operand A of mma.m16n8k16, then the scales, then (asymmetric
// only) the zeros. Units of a tile follow each other over k, tiles follow each other: [tiles][units][unit_bytes].
//
// Nibbles. With g = lane / 4 and t = lane % 4, sub-block j (32 inputs) of a unit gives a lane two 32-bit words, at
// (j / 2) * 512 + lane * 16 + (j % 2) * 8. Word h (0, 1) holds inputs k = 32 j + 16 s + 8 h + 2 t + e, s and e in {0,
// 1}:
//   output g:     bits 16 e + 4 s;   output g + 8: bits 16 e + 4 s + 8.
// So `word & 0x000f000f` is a pair of an A fragment as it stands (fp16 or bf16 subnormals q * 2^-24 or q * 2^-133), and
// `word & 0x00f000f0` the pair of the next 16 inputs, sixteen times larger.
//
// Scales: fp16, [scale blocks of the unit][8][2]: outputs g and g + 8 side by side. Zeros: one byte each, likewise.
#pragma once

#include <cstdint>

namespace lorikeet::kernels::int4 {

inline constexpr int kTileRows = 16;
inline constexpr int kUnitInputs = 128;
inline constexpr int kSubBlock = 32;
inline constexpr int kNibbleBytes = kTileRows * kUnitInputs / 2;

constexpr int scale_bytes(int scale_block) {
  return kUnitInputs / scale_block * kTileRows * 2;
}
constexpr int zero_bytes(int scale_block, bool asymmetric) {
  return asymmetric ? kUnitInputs / scale_block * kTileRows : 0;
}
constexpr int unit_bytes(int scale_block, bool asymmetric) {
  return kNibbleBytes + scale_bytes(scale_block) + zero_bytes(scale_block, asymmetric);
}

inline constexpr int kL2Line = 128;  // bytes

// The inputs are summed in this many parts, which are then added. Part of the definition of the result.
inline constexpr int kPartsOfK = 4;
inline constexpr int kPartsOfKLog2 = 2;

// The first unit of part `part`, of a weight with `units` units.
constexpr int part_begin(int units, int part) {
  return units * part / kPartsOfK;
}

}  // namespace lorikeet::kernels::int4
